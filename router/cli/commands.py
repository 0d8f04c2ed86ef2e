"""The command ``pointsman config``, which only tells."""

from __future__ import annotations

from pathlib import Path

import click

from policies.registry import PolicyError, load
from router.config.loading import load_config
from router.config.structs import ConfigError


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
