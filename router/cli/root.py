"""The command ``pointsman``: finds its subcommands, and turns errors into one line and a status.

Subcommands are the entry points of the group ``pointsman.commands``, so that no layer has to
import upward. Only the one that is called is imported.

Exit status: what the subcommand says (an integer that it returns is one), 2 for wrong use or wrong
configuration, 130 after Ctrl-C, 1 when the reader of the output has gone.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from router import __version__
from router.cli.purposes import purpose
from router.cli.selfcheck import ForeignPackageError, check_packages
from router.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint, EntryPoints

GROUP = "pointsman.commands"
"""The entry-point group."""

USAGE_ERROR = 2
INTERRUPTED = 130
READER_GONE = 1

_USERS_MISTAKES = (("router.config.structs", "ConfigError"), ("policies.contract", "PolicyError"))


class CommandGroup(click.Group):
    """A group whose commands are entry points, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all installed commands, in the order of the alphabet."""
        return sorted({entry.name for entry in _entries()})

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import a command; None when there is none of that name.

        Raises:
            click.ClickException: It is installed but cannot be imported.
        """
        found = [entry for entry in _entries() if entry.name == cmd_name]
        return _imported(found[0]) if found else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; a near miss gets a hint."""
        name = args[0]
        names = self.list_commands(ctx)
        if name not in names and not name.startswith("-"):
            ctx.fail(f"no such command {name!r}{did_you_mean(name, names)}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write each command with its purpose; one that cannot be imported says so."""
        rows = {entry.name: purpose(entry) or _imported_purpose(entry) for entry in _entries()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows.items()))


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`pointsman COMMAND --help` tells more of each.",
)
@click.version_option(__version__, prog_name="pointsman", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context) -> None:
    """A router for LLM inference fleets.

    It stands in front of vLLM, SGLang, TGI, TensorRT-LLM or llama.cpp replicas, speaks their own
    HTTP, and sends each request to the replica that its policy picks.

    \b
    To begin:
      pointsman serve --replica http://gpu-1:8000 --replica http://gpu-2:8000
      curl http://127.0.0.1:8080/v1/models
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(USAGE_ERROR)


def main() -> NoReturn:
    """Run the command line of this process; does not return."""
    status = run(sys.argv[1:])
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit status.
    """
    try:
        check_packages()
        status = root.main(args=list(arguments), prog_name="pointsman", standalone_mode=False)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except click.ClickException as error:
        return _complain(_sentence(error))
    except (ValueError, ForeignPackageError) as error:
        if isinstance(error, ValueError) and not _is_users_mistake(error):
            raise
        return _complain(str(error))
    return status if isinstance(status, int) else 0


def _entries() -> EntryPoints:
    # Imported here: it takes 50 ms, and `pointsman --version` does without.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return entry_points(group=GROUP)


def _imported(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        msg = f"the command {entry.name!r} cannot be loaded from {entry.value}: {error}"
        raise click.ClickException(msg) from error
    if not isinstance(command, click.Command):
        msg = f"the command {entry.name!r} cannot be loaded: {entry.value} is no click command"
        raise click.ClickException(msg)
    return command


def _imported_purpose(entry: EntryPoint) -> str:
    try:
        return _imported(entry).get_short_help_str(limit=200)
    except click.ClickException as error:
        return f"({error.message})"


def _sentence(error: click.ClickException) -> str:
    message = error.format_message().rstrip(". \n")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message}; see `{error.ctx.command_path} --help`"
    return message


def _complain(message: str) -> int:
    click.echo(f"pointsman: {' '.join(message.split())}", err=True)
    return USAGE_ERROR


def _is_users_mistake(error: ValueError) -> bool:
    """Whether the configuration or the choice of policy is at fault, and not our code.

    Asks only modules that were imported: what was not imported did not raise.
    """
    modules = ((sys.modules.get(module), name) for module, name in _USERS_MISTAKES)
    kinds = tuple(getattr(module, name) for module, name in modules if module is not None)
    return isinstance(error, kinds)


def _reader_gone() -> int:
    """Let nothing be written at exit: Python would try to flush, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return READER_GONE
