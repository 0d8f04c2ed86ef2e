"""What a picture of a simulation needs beside its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.quantiles import nearest_rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from router.core.replica import Replica

SHARES = 201
"""Points of a distribution: every half percent."""

MOST_TIMES = 400
"""Points of a curve over time."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the fleet over time."""

    times_s: list[float]
    in_flight: dict[str, list[float]]
    """By replica: attempts that have not ended, mean since the time before."""

    held: list[float]
    """Requests that wait in the router."""


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """The curves of one simulation."""

    ttft_s: list[float]
    """Its distribution: quantiles at equal steps of the share, from 0 to 1. Empty where no request
    succeeded."""

    load: Load


class LoadLog:
    """Notes the load at equal steps of time."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._in_flight: dict[str, list[int]] = {}
        self._held: list[int] = []

    def note(self, now: float, replicas: Iterable[Replica], held: int) -> None:
        """Note what there is now."""
        self._times_s.append(now)
        self._held.append(held)
        for replica in replicas:
            self._in_flight.setdefault(replica.name, []).append(replica.in_flight)

    def load(self) -> Load:
        """What was noted, in no more than :data:`MOST_TIMES` points."""
        step = -(-len(self._times_s) // MOST_TIMES) or 1
        return Load(
            times_s=self._times_s[step - 1 :: step],
            in_flight={name: _means(counts, step) for name, counts in self._in_flight.items()},
            held=_means(self._held, step),
        )


def distribution(values: Iterable[float]) -> list[float]:
    """The quantiles of ``values`` that a :class:`Curves` keeps."""
    ordered = sorted(values)
    if not ordered:
        return []
    return [nearest_rank(ordered, number / (SHARES - 1)) for number in range(SHARES)]


def merged(distributions: Iterable[list[float]]) -> list[float]:
    """The mean distribution of several simulations: quantile by quantile."""
    return [sum(values) / len(values) for values in zip(*distributions, strict=True)]


def busiest(load: Mapping[str, list[float]]) -> float:
    """The most that any replica had in flight."""
    return max((max(counts, default=0.0) for counts in load.values()), default=0.0)


def _means(counts: list[int], step: int) -> list[float]:
    return [
        sum(counts[start : start + step]) / step for start in range(0, len(counts) - step + 1, step)
    ]
