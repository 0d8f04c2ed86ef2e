"""Notices gray failure: a replica that works, but far slower than it did and than its peers do.

What is compared is free of load: the time of a decode step and of a prefill, both brought to a
standard load by what is known of the replica's speed. Each is set against the replica's own
history, which makes fleets of unlike hardware comparable, and then against what the same ratio is
at its peers, so that a heavier mix of requests, which slows everybody, is nobody's fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.speed import Speed

STANDARD_STREAMS: Final = 16
STANDARD_CONTEXT_TOKENS: Final = 32_768
STANDARD_PROMPT_TOKENS: Final = 2048

MOST_AT_ONCE: Final = 0.5
"""Weight of one look in what a replica is like now, however long the last one is ago."""

SUSPECT: Final = log(1.3)
"""A replica slower than its history by more than this changes that history ten times slower."""

MOST_FACTOR: Final = log(50.0)
"""Looks further off than this are taken as this far off."""


@dataclass(slots=True, frozen=True, kw_only=True)
class GraySettings:
    """When a replica counts as slow."""

    slow: float = 2.0
    """So many times slower than its own history and than its peers: its share is cut to match."""

    eject: float = 4.0
    """So many times slower: it is ejected, where the others can carry the load. Not for slow
    prefills alone while its decode steps are as ever: a first token may wait for a place in the
    engine's batch, too."""

    looks: int = 2
    """So many looks in a row, and twice as many to be ejected; one a second."""

    recent_s: float = 2.0
    """What it is like now is a mean over about so long."""

    history_s: float = 600.0
    """And its history over so long."""

    history_looks: int = 20
    """It has a history after so many looks."""


@dataclass(slots=True, frozen=True)
class Slowness:
    """What was found of one replica."""

    replica: str
    weight: float
    """Fair share for its speed; 1: it is well again."""
    eject: bool
    detail: str


class Trend:
    """One measure of one replica, now and in its history, as logarithms."""

    __slots__ = ("_history", "_looks", "_recent", "_seen_s", "_settings")

    def __init__(self, settings: GraySettings) -> None:
        self._settings = settings
        self._recent = 0.0
        self._history = 0.0
        self._looks = 0
        self._seen_s = 0.0

    def add(self, value_s: float, now: float) -> None:
        """It was measured as ``value_s``, above 0."""
        settings, value = self._settings, log(value_s)
        self._looks += 1
        if self._looks == 1:
            self._recent = self._history = value
        else:
            value = min(max(value, self._history - MOST_FACTOR), self._history + MOST_FACTOR)
            span_s = now - self._seen_s
            self._recent += min(1 - exp(-span_s / settings.recent_s), MOST_AT_ONCE) * (
                value - self._recent
            )
            follow = 1 - exp(-span_s / settings.history_s)
            if self._looks > settings.history_looks and self._recent - self._history > SUSPECT:
                follow /= 10
            else:
                follow = max(follow, 1 / self._looks)
            self._history += follow * (self._recent - self._history)
        self._seen_s = now

    @property
    def change(self) -> float | None:
        """Logarithm of how much slower it is than its history; None: it has none."""
        if self._looks <= self._settings.history_looks:
            return None
        return self._recent - self._history


class Trends:
    """The measures of one replica."""

    __slots__ = ("prefill", "slow_looks", "step", "told")

    def __init__(self, settings: GraySettings) -> None:
        self.step = Trend(settings)
        self.prefill = Trend(settings)
        self.slow_looks = 0
        self.told = False
        """Whether it was last told of as slow."""


class GrayWatch:
    """Compares replicas with their history and their peers.

    Args:
        settings: What is slow.
    """

    def __init__(self, settings: GraySettings) -> None:
        self.settings = settings
        self._trends: dict[str, Trends] = {}

    def forget(self, name: str) -> None:
        """The replica left, or is another process now."""
        self._trends.pop(name, None)

    def observe(
        self, name: str, now: float, *, step_s: float | None, prefill_s: float | None
    ) -> None:
        """What a replica is like now.

        Args:
            name: Whose.
            now: The time.
            step_s: Time of a decode step at the standard load; None: nothing was decoded.
            prefill_s: Time of a prefill of the standard length; None: there was none.
        """
        trends = self._trends.get(name)
        if trends is None:
            trends = self._trends[name] = Trends(self.settings)
        if step_s is not None:
            trends.step.add(step_s, now)
        if prefill_s is not None:
            trends.prefill.add(prefill_s, now)

    def look(self) -> list[Slowness]:
        """Who is slow now, and who no longer is; to be asked once a second."""
        found = []
        for name, trends in self._trends.items():
            step, prefill = self._factors(name, trends)
            factor, measure = max((step, "a decode step"), (prefill, "a prefill"))
            trends.slow_looks = trends.slow_looks + 1 if factor >= self.settings.slow else 0
            if trends.slow_looks >= self.settings.looks:
                trends.told = True
                eject = (
                    factor >= self.settings.eject
                    and trends.slow_looks >= 2 * self.settings.looks
                    and (step >= self.settings.slow or trends.step.change is None)
                )
                detail = f"{measure} takes {factor:.1f} x as long as it did, unlike its peers'"
                found.append(Slowness(name, 1 / factor, eject, detail))
            elif trends.told and not trends.slow_looks:
                trends.told = False
                found.append(Slowness(name, 1.0, eject=False, detail="as fast as it was"))
        return found

    def _factors(self, name: str, trends: Trends) -> tuple[float, float]:
        """By how much its decode steps and its prefills are slower than in its own history and
        than its peers' are."""
        others = [other for key, other in self._trends.items() if key != name]
        step = _excess(trends.step, (other.step for other in others))
        prefill = _excess(trends.prefill, (other.prefill for other in others))
        return exp(step), exp(prefill)


def _excess(own: Trend, others: Iterable[Trend]) -> float:
    changes = [change for other in others if (change := other.change) is not None]
    change = own.change
    if change is None or not changes:
        return 0.0
    return min(change, change - median(changes))


def standard_step_s(speed: Speed, slowness: float) -> float:
    """Time of a decode step at the standard load.

    Args:
        speed: What has been learned of the replica; it follows a change slowly.
        slowness: Measured over expected time of the steps just seen; the rest of the change.
    """
    return slowness * speed.step_time_s(STANDARD_STREAMS, STANDARD_CONTEXT_TOKENS)


def standard_prefill_s(speed: Speed, slowness: float) -> float:
    """Time of a prefill of the standard length; arguments as for :func:`standard_step_s`."""
    return slowness * speed.prefill_time_s(STANDARD_PROMPT_TOKENS)
