"""What the commands that take traces have in common on the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from policies.slo import SloError, parse_slo

if TYPE_CHECKING:
    from policies.slo import Slo

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

_DURATION = "Take only what arrives in this time after --start."

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


def all_finite(
    ctx: click.Context, param: click.Parameter, value: tuple[float, ...]
) -> tuple[float, ...]:
    """The same for an option that may be repeated."""
    for number in value:
        finite(ctx, param, number)
    return value


def objective(_ctx: click.Context, param: click.Parameter, value: str) -> Slo:
    """An objective as :func:`policies.slo.parse_slo` reads it."""
    try:
        return parse_slo(value)
    except SloError as error:
        raise click.BadParameter(str(error), param=param) from error


def rate_scale(
    help_text: str = "Send F times as many requests per second.",
    *names: str,
    default: float | None = 1.0,
    multiple: bool = False,
) -> Decorator:
    """``--rate-scale``, one or several, and what it does in the command at hand."""
    return click.option(
        "--rate-scale",
        *names,
        type=ABOVE_ZERO,
        callback=all_finite if multiple else finite,
        default=default,
        show_default=not multiple,
        multiple=multiple,
        metavar="F",
        help=help_text,
    )


def duration(help_text: str = _DURATION, *names: str, multiple: bool = False) -> Decorator:
    """``--duration``, one or several."""
    return click.option(
        "--duration",
        *names,
        type=ABOVE_ZERO,
        callback=all_finite if multiple else finite,
        multiple=multiple,
        metavar="SECONDS",
        help=help_text,
    )


def slo(default: str, help_text: str = "") -> Decorator:
    """``--slo``, and what is said of it beside what it is."""
    text = "What counts as goodput: limits of ttft, tpot, e2e"
    return click.option(
        "--slo",
        default=default,
        show_default=True,
        callback=objective,
        help=f"{text}{help_text}.",
    )


def timeout(help_text: str = "A request that has not ended by then has failed.") -> Decorator:
    """``--timeout``, and what it means in the command at hand."""
    return click.option(
        "--timeout",
        type=ABOVE_ZERO,
        callback=finite,
        default=600,
        show_default=True,
        metavar="SECONDS",
        help=help_text,
    )


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
seed = click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the jitter and of bimodal."
)
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
