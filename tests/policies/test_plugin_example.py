"""The policy in the README is a policy: loaded, checked and run as a reader would."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from random import Random

import pytest

from policies.base import RequestFacts
from policies.contract import check_class
from policies.registry import PolicyError, load
from policies.testing import View, check

README = Path(__file__).parents[2] / "README.md"
SPEC = "my_policies:LeastTokens"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's text, saved as my_policies.py in the working folder."""
    blocks = re.findall(
        r"<!-- policy-example -->\s*```python\n(.*?)```\s*<!-- /policy-example -->",
        README.read_text(),
        re.DOTALL,
    )
    assert len(blocks) == 1
    (tmp_path / "my_policies.py").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield blocks[0]
    sys.modules.pop("my_policies", None)


def test_it_is_short(example):
    assert len(example.splitlines()) <= 30


def test_it_chooses_by_tokens(example):
    policy = load(SPEC, {"output_weight": 2.0})
    replicas = [
        View("a", in_flight=1, in_flight_prompt_tokens=32_000),
        View("b", in_flight=5, in_flight_prompt_tokens=4_000, in_flight_output_tokens=900),
        View("c", in_flight=2, in_flight_prompt_tokens=5_000, in_flight_output_tokens=100),
    ]
    choice = policy.choose(RequestFacts(prompt_tokens=500), replicas, Random(0))
    assert (choice.replica.name, choice.reason) == ("c", "fewest_tokens")
    assert load(SPEC, {}).choose(RequestFacts(), replicas, Random(0)).replica.name == "b"


def test_it_keeps_the_laws(example):
    check(lambda: load(SPEC, {}))


def test_its_option_is_documented_and_checked(example):
    (option,) = check_class(type(load(SPEC, {})))
    assert (option.name, option.type, option.default) == ("output_weight", "float", 1.0)
    assert option.doc
    with pytest.raises(PolicyError, match="option 'output_weight' is 'much'; allowed: float"):
        load(SPEC, {"output_weight": "much"})
