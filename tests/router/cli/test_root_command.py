import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest

from policies.registry import PolicyError
from router import __version__
from router.cli import root as cli
from router.config.structs import ConfigError

POINTSMAN = str(Path(sys.executable).with_name("pointsman"))


@click.command("crash")
@click.argument("kind")
@click.pass_context
def crash_command(ctx, kind):
    """End in every way that a command can.

    More text that the list of commands leaves out.
    """
    endings = {
        "usage": click.UsageError("this\n  is wrong."),
        "parameter": click.BadParameter("not 7", param_hint="'--x'"),
        "click": click.ClickException("port taken"),
        "config": ConfigError("expected 1", path="$.x", where="f.yaml:3"),
        "policy": PolicyError("no such policy"),
        "value": ValueError("a bug"),
        "interrupt": KeyboardInterrupt(),
        "exit": SystemExit(4),
    }
    if kind in endings:
        raise endings[kind]
    if kind == "return":
        return 1
    if kind == "ctx":
        ctx.exit(3)
    click.echo("done")
    return None


MADE = click.Command("made", help="Made by a call, so its source says nothing. More.")
BROKEN = "router_cli_no_such_module:command"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the root command with a few commands of its own beside the real ones."""
    own = [
        EntryPoint("crash", f"{__name__}:crash_command", cli.GROUP),
        EntryPoint("broken", BROKEN, cli.GROUP),
        EntryPoint("number", f"{__name__}:BROKEN", cli.GROUP),
        EntryPoint("made", f"{__name__}:MADE", cli.GROUP),
    ]
    entries = cli._entries()
    monkeypatch.setattr(cli, "_entries", lambda: [*entries, *own])

    def run(*arguments):
        status = cli.run(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("usage", "pointsman: this is wrong; see `pointsman crash --help`\n"),
        (
            "parameter",
            "pointsman: Invalid value for '--x': not 7; see `pointsman crash --help`\n",
        ),
        ("click", "pointsman: port taken\n"),
        ("config", "pointsman: f.yaml:3: $.x: expected 1\n"),
        ("policy", "pointsman: no such policy\n"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(run, kind, line):
    assert run("crash", kind) == (2, "", line)


def test_a_bug_keeps_its_traceback(run):
    with pytest.raises(ValueError, match="a bug"):
        run("crash", "value")


@pytest.mark.parametrize(("kind", "status"), [("return", 1), ("ctx", 3), ("interrupt", 130)])
def test_a_command_gives_its_status(run, kind, status):
    assert run("crash", kind)[0] == status


def test_a_command_may_exit_by_itself(run):
    with pytest.raises(SystemExit) as caught:
        run("crash", "exit")
    assert caught.value.code == 4


def test_a_command_that_succeeds_has_status_0(run):
    assert run("crash", "nothing") == (0, "done\n", "")


@pytest.mark.parametrize(
    ("argument", "problem", "see"),
    [
        ("polices", "no such command 'polices' (did you mean 'policies'?)", "pointsman"),
        ("xyzzy", "no such command 'xyzzy'", "pointsman"),
        ("--xyzzy", "No such option '--xyzzy'", "pointsman"),
        ("crash", "Missing argument 'KIND'", "pointsman crash"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(run, argument, problem, see):
    assert run(argument) == (2, "", f"pointsman: {problem}; see `{see} --help`\n")


def test_a_command_that_cannot_be_imported_says_why(run):
    line = f"pointsman: the command 'broken' cannot be loaded from {BROKEN}: No module named "
    assert run("broken") == (2, "", f"{line}'router_cli_no_such_module'\n")


def test_an_entry_point_that_is_no_command_is_refused(run):
    status, _, err = run("number")
    assert status == 2
    assert err.endswith(":BROKEN is no click command\n")


def test_help_lists_every_command_with_its_purpose(run):
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    text = " ".join(out.split())
    assert "crash End in every way that a command can." in text
    assert "broken (the command 'broken' cannot be loaded" in text
    assert "made Made by a call, so its source says nothing." in text
    for name in ("config Print the default", "policies List the policies"):
        assert name in text


def test_without_a_command_the_help_is_an_error(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: pointsman")


def test_a_foreign_package_is_one_line_and_status_2(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/__init__.py").write_text("")
    done = subprocess.run(
        [POINTSMAN, "--version"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"pointsman: the Python package 'policies' is found in {tmp_path}"
    )
    assert done.stderr.count("\n") == 1


def imported_by(*arguments):
    """What is printed, and which slow modules are imported for it."""
    slow = {"aiohttp", "rich", "yaml", "importlib.metadata", "msgspec", "uvloop"}
    code = (
        f"import sys; from router.cli import root as cli; cli.run({arguments});"
        f"print('imported:', *sorted({slow} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    out, _, imported = done.stdout.partition("imported:")
    return out, imported.split()


def test_version_is_quick():
    assert imported_by("--version") == (f"pointsman {__version__}\n", [])


def test_help_imports_no_command_to_list_it():
    out, imported = imported_by("--help")
    listed = out.partition("Commands:")[2].splitlines()
    names = {line.split()[0] for line in listed if line.startswith("  ") and line[2] not in " `"}
    assert names == {
        "config",
        "drain",
        "explain",
        "policies",
        "replay",
        "replica",
        "rolling-order",
        "serve",
        "simulate",
        "trial",
        "undrain",
    }
    assert "cannot be loaded" not in out
    assert imported == ["importlib.metadata"]


def test_a_reader_that_leaves_is_no_error_on_the_screen():
    done = subprocess.run(
        f"'{POINTSMAN}' config | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}  # 0: all was written before the reader left
    assert done.stderr == ""


def test_a_closed_reader_at_the_last_flush_is_quiet(tmp_path):
    script = tmp_path / "late.py"
    script.write_text(
        "import os, sys\n"
        "from router.cli import root as cli\n"
        "reader, writer = os.pipe()\n"
        "os.close(reader)\n"
        "os.dup2(writer, 1)\n"
        "sys.exit(cli.run(['--version']))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
