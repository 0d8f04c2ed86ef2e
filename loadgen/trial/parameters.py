"""What the command's options mean, where click cannot say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from loadgen.engine.profile import load_profile
from policies.registry import PolicyError, load

if TYPE_CHECKING:
    from pathlib import Path

    from policies.slo import Slo

_Value = TypeVar("_Value")


class Given(TypedDict):
    """The options, as click hands them over."""

    traces: tuple[str, ...]
    policies: tuple[str, ...]
    replicas: int
    profile: str
    speed: float
    max_batched_tokens: int | None
    start: float
    durations: tuple[float, ...]
    rate_scales: tuple[float, ...]
    jitter: bool
    seed: int
    max_input_tokens: int | None
    max_output_tokens: int | None
    slo: Slo
    timeout: float
    kill_after: float | None
    back_after: float | None
    out: Path | None


def known_policies(
    _ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Take commas apart, and refuse a policy that no router could load."""
    names = tuple(name.strip() for part in value for name in part.split(","))
    for name in names:
        try:
            load(name, {})
        except PolicyError as error:
            raise click.BadParameter(str(error), param=param) from error
    if len(set(names)) < len(names):
        raise click.BadParameter("one is named twice", param=param)
    return names


def known_profile(_ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a profile that no replica could load."""
    try:
        load_profile(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error
    return value


def one_each(
    option: str, values: tuple[_Value, ...], traces: tuple[str, ...], default: _Value
) -> tuple[_Value, ...]:
    """A value for each trace: the default, one for all, or as many as there are traces.

    Raises:
        click.UsageError: There are some, but neither one nor as many as traces.
    """
    if len(values) in {0, 1}:
        return (values or (default,)) * len(traces)
    if len(values) != len(traces):
        msg = f"{option} is given {len(values)} times for {len(traces)} traces: once, or for each"
        raise click.UsageError(msg)
    return values
