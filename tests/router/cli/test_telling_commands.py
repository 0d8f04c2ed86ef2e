import subprocess
import sys
from pathlib import Path

import pytest

from router.cli import root as cli
from router.config.loading import parse_config
from router.config.structs import Config


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        status = cli.run(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_config_prints_a_file_that_loads(run):
    status, out, err = run("config")
    assert (status, err) == (0, "")
    assert parse_config(out, "printed", {}) == Config()


def test_check_says_ok(run, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("policy: {name: session, options: {load_factor: 2.0}}\n")
    assert run("config", "--check", str(file)) == (0, f"{file}: ok\n", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: x\n", ":1: $.seed: 'x' is not allowed; expected a whole number or null"),
        ("policy: {name: sesion}\n", ": $.policy: policy 'sesion': not known (did you mean"),
        (
            "policy: {name: session, options: {load_factr: 2.0}}\n",
            ": $.policy: policy 'session': ",
        ),
    ],
)
def test_check_says_what_is_wrong_in_one_line(run, tmp_path, text, says):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    status, out, err = run("config", "--check", str(file))
    assert (status, out) == (2, "")
    assert err.startswith(f"pointsman: {file}{says}")
    assert err.count("\n") == 1


def test_the_installed_command_runs():
    pointsman = Path(sys.executable).with_name("pointsman")
    done = subprocess.run([pointsman, "config"], capture_output=True, text=True, check=True)
    assert parse_config(done.stdout, "printed", {}) == Config()
