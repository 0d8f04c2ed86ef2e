"""What the commands that take traces have in common on the command line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from policies.slo import SloError, parse_slo

if TYPE_CHECKING:
    from policies.slo import Slo

ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
NOT_NEGATIVE = click.FloatRange(min=0)


class RecordedCommand(click.Command):
    """Keeps the arguments as they were given, for reports; see :func:`recorded`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note ``args``, then parse them."""
        ctx.meta[__name__] = tuple(args)
        return super().parse_args(ctx, args)


def recorded(ctx: click.Context) -> tuple[str, ...]:
    """The words of the command line of a :class:`RecordedCommand`, program name and all."""
    return (*ctx.command_path.split(), *ctx.meta[__name__])


class BadInput(click.ClickException):
    """What was asked for cannot be done, though the command line is well-formed."""

    exit_code = 2


def finite(_ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse the numbers that ranges let through: infinities and what is no number."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number", param=param)
    return value


def objective(_ctx: click.Context, param: click.Parameter, value: str) -> Slo:
    """An objective as :func:`policies.slo.parse_slo` reads it."""
    try:
        return parse_slo(value)
    except SloError as error:
        raise click.BadParameter(str(error), param=param) from error


start = click.option(
    "--start",
    type=NOT_NEGATIVE,
    callback=finite,
    default=0.0,
    metavar="SECONDS",
    help="Skip what arrives in this time of a trace.",
)
limit = click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Take the first N requests."
)
jitter = click.option("--jitter", is_flag=True, help="Spread requests that share one timestamp.")
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of the jitter.")
max_input_tokens = click.option(
    "--max-input-tokens", type=click.IntRange(1), metavar="N", help="Cut longer prompts."
)
max_output_tokens = click.option(
    "--max-output-tokens", type=click.IntRange(1), metavar="N", help="Cut longer answers."
)
max_batched_tokens = click.option(
    "--max-batched-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Token budget of an engine step.  [default: the profile's]",
)
