# pointsman: everything happens in .venv, nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install test lint types contracts unit curl bench demo study soak chaos chaos-split clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## install pointsman and its tools into .venv

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pointsman needs Python 3.11 or newer: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test --group lint
	@touch $@

test: lint types contracts unit ## lint, types, import contracts and the test suite

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

contracts: $(STAMP) ## import-linter: arrows point down only
	$(BIN)/lint-imports

unit: $(STAMP) curl ## the test suite
	$(BIN)/pytest -n 2 --dist loadgroup -m "not soak and not bench and not chaos"

# Among the real clients of the suite is curl; where it is missing and we may, it is installed.
curl:
	@command -v curl >/dev/null || { apt-get update -qq && apt-get install -y -qq curl; } \
		|| { echo "the suite needs curl: install it"; exit 2; }

bench: $(STAMP) ## speed as ratios to peers measured in the same run
	$(BIN)/python -m tests.bench

soak: $(STAMP) ## the long tests: thousands of streams, memory, leaks
	$(BIN)/pytest -m soak

chaos-split: $(STAMP) ## 200 split requests of which a replica is killed (a quarter of an hour)
	CHAOS_SPLIT_RUNS=40 $(BIN)/pytest -n 0 -m chaos tests/chaos/test_chaos_split.py

chaos: $(STAMP) ## replicas killed, stopped and broken under load; writes out/chaos/report.md
	$(BIN)/pytest -n 0 -m chaos

demo: $(STAMP) ## a simulated fleet, a real trace, several policies, one killed replica
	$(BIN)/python -m loadgen.demo

STUDY ?=
study: $(STAMP) ## capacity under every policy, tables and pictures (hours; STUDY=--quick: minutes)
	$(BIN)/python -m loadgen.study $(STUDY)

clean: ## remove .venv and caches
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis out tests/e2e/node/node_modules
