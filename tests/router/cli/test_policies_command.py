"""``pointsman policies``: what a new user reads, on a narrow and on a wide screen."""

from __future__ import annotations

from textwrap import dedent

import pytest

from policies.contract import Option
from policies.registry import PolicyInfo, available
from router.cli import policies
from router.cli import root as cli


@pytest.fixture(params=["80", "120"])
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", request.param)
    return int(request.param)


@pytest.fixture
def run(width, capsys):
    def run(*arguments):
        status = cli.run(("policies", *arguments))
        out, err = capsys.readouterr()
        assert all(len(line) <= width for line in out.splitlines())
        return status, out, err

    return run


def flat(text):
    return " ".join(text.split())


def test_each_policy_is_listed_with_its_summary_and_options(run):
    status, out, err = run()
    assert (status, err) == (0, "")
    text = flat(out)
    for info in available():
        mark = "The default. " * (info.name == "least_estimated_completion")
        assert f" {info.name} {mark}{info.summary}" in text
    assert "options: load_factor=1.25, least_bound=4" in text
    assert "options: queue_weight=2.0, kv_weight=2.0, prefix_weight=3.0" in text
    assert text.count("The default.") == 1
    assert text.endswith(" How one works: pointsman policies NAME")


def test_the_list_fits_on_one_screen(run):
    # A tall terminal: a longer list would scroll its beginning away.
    assert run()[1].count("\n") <= 55


def test_plugins_and_what_is_wrong_with_them_are_listed(run, monkeypatch):
    option = Option("shape", list[int], [1], "")
    infos = [
        PolicyInfo("good", "acme 1.0", "acme:Good", "Summary.", (option,)),
        PolicyInfo("bad", "acme 1.0", "acme:Bad", error="cannot load [red]acme:Bad[/red]"),
    ]
    monkeypatch.setattr(policies, "available", lambda: infos)
    text = flat(run()[1])
    assert "good Summary. options: shape=[1] (acme 1.0)" in text
    assert "bad cannot be used: cannot load [red]acme:Bad[/red] (acme 1.0)" in text


def test_one_policy_tells_how_it_works_and_what_its_options_mean(run):
    status, out, err = run("cache_aware")
    assert (status, err) == (0, "")
    text = flat(out)
    assert text.startswith("cache_aware (pointsman ")
    assert "    a match   cached / prompt tokens > cache_threshold\n" in out
    assert "balance_abs_threshold int 64 How many more requests" in text
    assert "`" not in out
    assert "Args" not in out


def test_one_without_options_says_so(run):
    assert run("lmetric")[1].endswith("It has no options.\n")


def test_a_class_of_ones_own_can_be_asked_about(run, tmp_path, monkeypatch):
    (tmp_path / "own_policy_for_telling.py").write_text(
        dedent("""
            class Mine:
                def __init__(self, *, bound: int = 3) -> None: ...
                def choose(self, request, replicas, rng): ...

            class Broken:
                '''Has no method.'''
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = flat(run("own_policy_for_telling:Mine")[1])
    assert mine.startswith("own_policy_for_telling:Mine It has no docstring.")
    assert "bound int 3" in mine
    broken = flat(run("own_policy_for_telling:Broken")[1])
    assert broken.endswith("cannot be used: class Broken has no method `choose`")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lmetrc", "policy 'lmetrc': not known (did you mean 'lmetric'?); allowed: cache_aware, "),
        ("a:b:c", "policy 'a:b:c': neither a name that `pointsman policies` lists nor "),
    ],
)
def test_an_unknown_name_is_one_line_and_status_2(run, name, says):
    status, out, err = run(name)
    assert (status, out) == (2, "")
    assert err.startswith(f"pointsman: {says}")
    assert err.count("\n") == 1
