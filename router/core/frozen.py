"""Gauges that stand still while requests come and go.

A metrics page may be served by another thread than the one that steps the engine, or by a cache in
between: then it answers at once, and for ever the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.core.sample import Sample

LEAST_LOOKS: Final = 8
"""Looks in a row that saw the same; two seconds at four looks a second."""

LEAST_CHANGES: Final = 4
"""How often the number of own requests there changed meanwhile, from one look to the next. Traffic
of others might make up for one such change, hardly for four in a row."""


class Gauges:
    """Watches the gauges of one replica."""

    __slots__ = ("_changes", "_looks", "_sample", "_there")

    def __init__(self) -> None:
        self._sample: Sample | None = None
        self._there = 0
        self._looks = 0
        """Looks since the first that saw the present values."""
        self._changes = 0

    @property
    def frozen(self) -> bool:
        """Whether they stand still while they should move."""
        return self._looks >= LEAST_LOOKS and self._changes >= LEAST_CHANGES

    def seen(self, sample: Sample, there: int) -> None:
        """They were read.

        Args:
            sample: What they said.
            there: Own requests that the replica had before the look began, and still has.
        """
        published = sample.running is not None and sample.waiting is not None
        if sample != self._sample or not published:
            self._sample = sample
            self._looks = self._changes = 0
        else:
            self._looks += 1
            self._changes += there != self._there
        self._there = there
