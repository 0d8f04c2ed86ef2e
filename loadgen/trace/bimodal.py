"""A synthetic workload: mostly short prompts, some very long ones, in bursts.

A prefill of 32k tokens holds up every stream of its replica, so this is where routers differ most.
Arrivals are a renewal process with gamma gaps, answers are exponentially long.
"""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec

from loadgen.trace.errors import TraceError
from loadgen.trace.request import AtLeastOne, Trace, TraceRequest

NAME = "bimodal"

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Bimodal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters, as they are written: ``bimodal:rate=4,n=600,seed=1``."""

    rate: Positive = 4.0
    """Mean arrivals per second."""

    n: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 600
    """How many requests."""

    seed: int = 0
    """Seed of everything that is drawn."""

    short: AtLeastOne = 4096
    """Prompt tokens of a short request."""

    long: AtLeastOne = 32_768
    """Prompt tokens of a long request."""

    long_share: Share = 0.1
    """Share of long requests."""

    outlier: AtLeastOne = 128_000
    """Prompt tokens of an outlier."""

    outlier_share: Share = 0.0
    """Share of outliers, beside the long ones."""

    output: Positive = 200.0
    """Mean output tokens; exponential, at least one."""

    cv: Positive = 2.0
    """Coefficient of variation of the gaps between arrivals; 1 is a Poisson process."""


def make_trace(parameters: Bimodal, name: str = NAME) -> Trace:
    """Draw the trace; equal parameters give an equal trace."""
    rng = Random(parameters.seed)
    shape = parameters.cv**-2
    mean_gap_s = 1 / parameters.rate
    arrival_s = 0.0
    requests = []
    for _ in range(parameters.n):
        arrival_s += rng.gammavariate(shape, mean_gap_s / shape)
        drawn = rng.random()
        requests.append(
            TraceRequest(
                arrival_s=arrival_s,
                prompt_tokens=_prompt_tokens(parameters, drawn),
                output_tokens=max(round(rng.expovariate(1 / parameters.output)), 1),
            )
        )
    return Trace.of(name, requests)


def _prompt_tokens(parameters: Bimodal, drawn: float) -> int:
    if drawn < parameters.long_share:
        return parameters.long
    if drawn < parameters.long_share + parameters.outlier_share:
        return parameters.outlier
    return parameters.short


def parse_parameters(text: str) -> Bimodal:
    """Read ``rate=4,n=600``; what is not named keeps its default.

    Raises:
        TraceError: A parameter is unknown, given twice, or has a value that it cannot have.
    """
    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key in given:
            raise TraceError(f"{part!r} is no new key=value", f"{NAME}:{text}")
        given[key] = value
    try:
        return msgspec.convert(given, Bimodal, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(Bimodal.__struct_fields__)
        raise TraceError(f"{error} (known: {known})", f"{NAME}:{text}") from error
