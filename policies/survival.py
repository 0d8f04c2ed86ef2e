"""How long answers are: the chance that a stream which has run so far ends soon.

Never trusts a client's bound alone: most answers end long before it.
"""

from __future__ import annotations

from math import exp, log2

BINS_PER_DOUBLING = 4
BINS = 20 * BINS_PER_DOUBLING + 1
"""Geometric bins of output tokens, up to a million."""

PRIOR_TOKENS = 200.0
"""Mean length of an answer before any has been seen."""

PRIOR_ANSWERS = 4.0
"""So many answers outweigh the prior."""


def bin_of(tokens: float) -> int:
    """The bin of a length in output tokens."""
    return min(int(log2(tokens) * BINS_PER_DOUBLING), BINS - 1) if tokens > 1 else 0


EDGES = tuple(2 ** (number / BINS_PER_DOUBLING) for number in range(BINS + 1))
"""Lengths at which the bins begin; the first one begins at one token."""


class Survival:
    """The law of answers' lengths, as a survival curve over geometric bins."""

    __slots__ = ("_alive", "_remaining", "mean_tokens")

    def __init__(self) -> None:
        self._alive: list[float] = []
        """Share of answers at least as long as each edge."""
        self._remaining: list[float] = []
        """Mean tokens still to come of an answer that has come to each edge."""
        self.mean_tokens = PRIOR_TOKENS
        self.learn([0.0] * BINS)

    def learn(self, ended: list[float]) -> None:
        """Take ``ended``, the (weighted) number of answers that ended in each bin."""
        weight = PRIOR_ANSWERS / (PRIOR_ANSWERS + sum(ended))
        total = sum(ended) or 1.0
        alive, left = [], 1.0
        for number, edge in enumerate(EDGES):
            alive.append(weight * exp(-edge / PRIOR_TOKENS) + (1 - weight) * left)
            if number < BINS:
                left = max(left - ended[number] / total, 0.0)
        remaining = [PRIOR_TOKENS] * len(EDGES)
        area = alive[-1] * PRIOR_TOKENS
        for number in range(BINS - 1, -1, -1):
            area += (alive[number] + alive[number + 1]) / 2 * (EDGES[number + 1] - EDGES[number])
            remaining[number] = area / alive[number] if alive[number] > 1e-9 else EDGES[number] / 2
        self._alive, self._remaining = alive, remaining
        self.mean_tokens = remaining[0] + 1

    def alive(self, tokens: float) -> float:
        """The share of answers that are longer than ``tokens``."""
        if tokens <= 1:
            return 1.0
        place = log2(tokens) * BINS_PER_DOUBLING
        number = int(place)
        if number >= BINS:
            return self._alive[-1]
        below = self._alive[number]
        return below - (below - self._alive[number + 1]) * (place - number)

    def outlook(self, tokens: float) -> tuple[float, float]:
        """:meth:`alive` and :meth:`remaining_tokens` at once: both are asked of each stream."""
        if tokens <= 1:
            return 1.0, self._remaining[0]
        place = log2(tokens) * BINS_PER_DOUBLING
        number = int(place)
        if number >= BINS:
            return self._alive[-1], self._remaining[BINS - 1]
        alive = self._alive
        below = alive[number]
        return below - (below - alive[number + 1]) * (place - number), self._remaining[number]

    def ends_within(self, tokens: float, more: float) -> float:
        """The chance that an answer of ``tokens`` so far ends within ``more`` tokens."""
        alive = self.alive(tokens)
        if alive < 1e-9:
            return 1.0
        return 1.0 - self.alive(tokens + more) / alive

    def remaining_tokens(self, tokens: float) -> float:
        """How many more tokens an answer of ``tokens`` so far has on average."""
        return self._remaining[bin_of(tokens)]
