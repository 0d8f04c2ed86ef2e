"""Finding policies: entry points, module:Class, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from policies.base import RequestFacts
from policies.registry import PolicyError, available, load, look_up
from policies.session import Session
from policies.testing import View

POLICY = """
from policies.base import Choice

class {name}:
    '''Takes the first one.

    More on that.
    '''

    def choose(self, request, replicas, rng):
        return Choice(replicas[0], {reason!r})
"""


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """An empty working folder; modules imported from it are forgotten afterwards."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    known = set(sys.modules)
    yield folder
    for name in set(sys.modules) - known:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install distributions that offer policies, as pip would leave them."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def install(distribution, version, **policies):
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = [f"{name} = {target}" for name, target in policies.items()]
        (info / "entry_points.txt").write_text("\n".join(["[pointsman.policies]", *lines]) + "\n")

    return install


def reason(policy):
    return policy.choose(RequestFacts(), [View("a")], None).reason


def refusal(spec, options=None):
    with pytest.raises(PolicyError) as caught:
        load(spec, options or {})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"policy {spec!r}: ")
    return message


def test_built_in_policies_are_listed_through_entry_points():
    infos = {info.name: info for info in available()}
    built_in = [name for name, info in infos.items() if info.distribution.startswith("pointsman ")]
    assert built_in == [
        "cache_aware",
        "dynamo_kv",
        "least_estimated_completion",
        "least_kv",
        "least_load",
        "least_queue",
        "least_requests",
        "llm_d",
        "lmetric",
        "power_of_two",
        "prefill_decode",
        "prefix_aware",
        "random",
        "round_robin",
        "session",
        "smetric",
    ]
    for name in built_in:
        assert infos[name].error is None
        assert infos[name].summary.endswith(".")
        assert type(load(name, {})).__name__ == infos[name].target.partition(":")[2]


def test_a_listed_policy_tells_its_options():
    session = next(info for info in available() if info.name == "session")
    assert [(o.name, o.type, o.default) for o in session.options] == [
        ("load_factor", "float", 1.25),
        ("least_bound", "int", 4),
    ]
    assert session.options[0].doc.startswith("How far above the mean load")
    assert session.options[0].doc.endswith("more loyal.")
    assert session.options[1].doc.startswith("A replica with fewer open requests")


def test_a_policy_is_looked_up_by_name_or_class():
    info = look_up("session")
    assert info == next(one for one in available() if one.name == "session")
    assert info.about.startswith(f"{info.summary}\n\nConsistent hashing")
    assert info.about.endswith("`least_requests`` sends it.")
    by_class = look_up("policies.session:Session")
    assert (by_class.about, by_class.options) == (info.about, info.options)


@pytest.mark.parametrize("spec", ["sesion", "a:b:c"])
def test_looking_up_nothing_is_refused_as_loading_it_is(spec):
    with pytest.raises(PolicyError) as caught:
        look_up(spec)
    assert str(caught.value) == refusal(spec)


def test_a_broken_policy_is_looked_up_with_its_error():
    assert look_up("no_such_module_here:Policy").error == refusal(
        "no_such_module_here:Policy"
    ).removeprefix("policy 'no_such_module_here:Policy': ")


def test_options_reach_the_policy():
    policy = load("session", {"load_factor": 2, "least_bound": 7})
    assert isinstance(policy, Session)
    assert (policy.load_factor, policy.least_bound) == (2.0, 7)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    message = refusal("least_request")
    assert "not known (did you mean 'least_requests'?); allowed: cache_aware, " in message
    assert "did you mean" not in refusal("zzz")


@pytest.mark.parametrize("spec", ["a/b.py:C", "a:", ":B", "a:b:c", "a b:C"])
def test_a_spec_of_neither_form_is_refused(spec):
    assert "neither a name that `pointsman policies` lists nor package.module:Class" in refusal(
        spec
    )


def test_a_plugin_is_found_by_its_entry_point(install, working_folder, monkeypatch):
    monkeypatch.syspath_prepend(working_folder)
    (working_folder / "plugin_a.py").write_text(POLICY.format(name="First", reason="plugin"))
    install("some-plugin", "2.1", first="plugin_a:First")
    assert reason(load("first", {})) == "plugin"
    info = next(info for info in available() if info.name == "first")
    assert info.distribution == "some-plugin 2.1"
    assert (info.summary, info.target) == ("Takes the first one.", "plugin_a:First")


def test_only_the_policy_asked_for_is_imported(install, working_folder, monkeypatch):
    monkeypatch.syspath_prepend(working_folder)
    (working_folder / "plugin_b.py").write_text(POLICY.format(name="First", reason="plugin"))
    install("some-plugin", "2.1", first="plugin_b:First")
    load("round_robin", {})
    assert "plugin_b" not in sys.modules


def test_one_name_from_two_distributions_is_refused_with_both(install):
    install("plugin-one", "1.0", twin="os:First", other="os:path")
    install("plugin-two", "3.0", twin="os:Second")
    message = refusal("twin")
    assert "offered by" in message
    assert "plugin-one 1.0" in message
    assert "plugin-two 3.0" in message
    with pytest.raises(PolicyError, match=r"'twin' is offered by"):
        available()
    assert isinstance(load("session", {}), Session)


def test_a_plugin_that_stands_in_for_a_built_in_policy_is_refused(install):
    install("impostor", "1.0", session="os:First")
    message = refusal("session")
    assert "impostor 1.0" in message
    assert "pointsman " in message


def test_a_broken_plugin_is_listed_with_its_error(install, working_folder, monkeypatch):
    monkeypatch.syspath_prepend(working_folder)
    (working_folder / "plugin_c.py").write_text("raise RuntimeError('no such device')\n")
    install("broken", "1.0", broken="plugin_c:First", missing="no_such_module:First")
    infos = {info.name: info for info in available()}
    assert infos["broken"].error == "cannot load plugin_c:First: RuntimeError: no such device"
    assert infos["missing"].error.startswith(
        "cannot load no_such_module:First: No module named 'no_such_module'; searched: "
    )
    assert infos["session"].error is None
    assert "no such device" in refusal("broken")


def test_a_distribution_without_metadata_is_still_told_apart(monkeypatch):
    from importlib.metadata import EntryPoint, EntryPoints  # noqa: PLC0415

    nameless = EntryPoint(name="x", value="os:First", group="pointsman.policies")
    monkeypatch.setattr("policies.registry.entry_points", lambda group: EntryPoints([nameless] * 2))
    assert "an unnamed distribution and an unnamed distribution" in refusal("x")


def test_a_class_in_the_working_folder_is_found(working_folder):
    (working_folder / "my_policies.py").write_text(POLICY.format(name="Mine", reason="mine"))
    assert reason(load("my_policies:Mine", {})) == "mine"
    assert sys.path[-1] == str(working_folder)
    load("my_policies:Mine", {})
    assert sys.path.count(str(working_folder)) == 1


def test_the_working_folder_shadows_nothing(working_folder):
    folder = working_folder / "policies"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('shadowed')\n")
    (folder / "session.py").write_text(POLICY.format(name="Session", reason="shadow"))
    (working_folder / "json.py").write_text(POLICY.format(name="Mine", reason="shadow"))
    program = (
        "from policies.registry import load\n"
        "load('policies.session:Session', {}).load_factor\n"
        "import json\n"
        "json.loads('1')\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=working_folder)
    assert "has no attribute 'Mine'" in refusal("json:Mine")
    message = refusal("policies.mine:Mine")
    assert "No module named 'policies.mine'; searched: " in message
    assert message.endswith(str(working_folder))


def test_a_class_within_a_class_is_found(working_folder):
    source = POLICY.format(name="Inner", reason="inner") + "\nclass Outer:\n    Nested = Inner\n"
    (working_folder / "nested.py").write_text(source)
    assert reason(load("nested:Outer.Nested", {})) == "inner"


def test_an_import_that_fails_inside_the_module_is_told(working_folder):
    (working_folder / "needs_more.py").write_text("import no_such_library\n")
    assert "cannot load needs_more:X: No module named 'no_such_library'" in refusal("needs_more:X")
    (working_folder / "typo.py").write_text("def (:\n")
    assert "cannot load typo:X: SyntaxError" in refusal("typo:X")


def test_importing_the_registry_imports_no_policy():
    program = dedent(
        """
        import sys
        import policies.registry
        print(sorted(name for name in sys.modules if name.startswith("policies.")))
        """
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert output.strip() == "['policies.contract', 'policies.registry']"
