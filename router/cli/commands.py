"""The commands that only tell: ``pointsman policies`` and ``pointsman config``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from policies.registry import PolicyError, available, load
from router.config.loading import load_config
from router.config.structs import ConfigError

if TYPE_CHECKING:
    from policies.registry import PolicyInfo


@click.command("policies")
def policies_command() -> None:
    """List the policies that can be chosen, with their options.

    Use one with `pointsman serve --policy NAME`, or in the configuration:

    \b
      policy:
        name: NAME
        options: {OPTION: VALUE}

    A class of your own is used as --policy package.module:Class.
    """
    # Imported here: it takes 50 ms that `pointsman config` need not wait for.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(show_lines=True)
    for heading in ("policy", "what it does", "options"):
        table.add_column(heading, overflow="fold")
    infos = available()
    ours = {info.distribution for info in infos if info.distribution.startswith("pointsman ")}
    for info in infos:
        foreign = "" if info.distribution in ours else f"\n({info.distribution})"
        what = f"cannot be used: {info.error}" if info.error else info.summary
        table.add_row(_plain(info.name), _plain(f"{what}{foreign}"), _plain(_options(info)))
    Console().print(table)


@click.command("config")
@click.option(
    "--check",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Check FILE instead: print `FILE: ok`, or the mistake and exit with status 2.",
)
def config_command(file: Path | None) -> None:
    """Print the default configuration with comments, or check a file.

    \b
    Examples:
      pointsman config > config.yaml
      pointsman config --check config.yaml
    """
    if file is not None:
        check_file(file)
        click.echo(f"{file}: ok")
        return
    from router.config.defaultfile import default_file  # noqa: PLC0415 - reads the source; --check need not

    click.echo(default_file(), nl=False)


def check_file(file: Path) -> None:
    """Check a configuration file as `pointsman serve` would, its policy included.

    Raises:
        ConfigError: It holds a mistake.
    """
    policy = load_config(file).policy
    try:
        load(policy.name, policy.options)
    except PolicyError as error:
        raise ConfigError(str(error), path="$.policy", where=str(file)) from error


def _options(info: PolicyInfo) -> str:
    lines = (
        f"{option.name}: {option.type} = {option.default!r}"
        + (f"\n  {option.doc}" * bool(option.doc))
        for option in info.options
    )
    return "\n".join(lines) or "none"


def _plain(text: str) -> str:
    """Keep rich from reading square brackets as markup."""
    from rich.markup import escape  # noqa: PLC0415 - with the rest of rich

    return escape(text)
