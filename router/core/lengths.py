"""Learns how long the answers of one model are."""

from __future__ import annotations

from policies.survival import BINS, Survival, bin_of

LEARN_EVERY = 16
"""The survival curve is drawn anew after so many answers, and after each of the first."""

MEMORY_ANSWERS = 2000.0
"""So many answers count; older ones fade."""


class Lengths:
    """Lengths of the answers of one model, and the survival curve drawn from them."""

    __slots__ = ("_ended", "_new", "_seen", "survival")

    def __init__(self) -> None:
        self.survival = Survival()
        self._ended = [0.0] * BINS
        self._new = self._seen = 0

    def ended(self, tokens: int) -> None:
        """An answer of ``tokens`` came to its own end."""
        self._ended[bin_of(tokens)] += 1
        self._new += 1
        self._seen += 1
        if self._new >= LEARN_EVERY or self._seen < LEARN_EVERY:
            fade = 1 - self._new / MEMORY_ANSWERS
            self._ended = [count * fade for count in self._ended]
            self._new = 0
            self.survival.learn(self._ended)
