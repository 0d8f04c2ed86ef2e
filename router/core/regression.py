"""Least squares, learned one observation at a time."""

from __future__ import annotations

LEAST_ONE_OF = 50.0
"""No value falls below one so-many-th of what was believed at first."""


class Regression:
    """Recursive least squares with forgetting, over a few terms.

    Args:
        start: What is believed at first.
        doubt: How far each of these may be off: its standard deviation, as a share of it.
        noise: Standard deviation of an observation, as a share of it.
        memory: Observations that count; older ones fade.
    """

    __slots__ = ("_cover", "_doubt", "_fade", "_noise", "_start", "values")

    def __init__(self, start: list[float], doubt: float, noise: float, memory: float) -> None:
        self.values = list(start)
        self._start = start
        self._cover = [
            [(doubt * value) ** 2 if row == column else 0.0 for column in range(len(start))]
            for row, value in enumerate(start)
        ]
        self._doubt = doubt
        self._noise = noise
        self._fade = 1 - 1 / memory

    def predict(self, terms: list[float]) -> float:
        """What is expected for ``terms``."""
        return sum(value * term for value, term in zip(self.values, terms, strict=True))

    def learn(self, terms: list[float], seen: float) -> None:
        """Take an observation; one that is far off counts as less far."""
        expected = self.predict(terms)
        scale = max(expected, 1e-9)
        error = min(max(seen - expected, -scale), scale)
        cover = self._cover
        spread = [sum(a * t for a, t in zip(row, terms, strict=True)) for row in cover]
        variance = sum(s * t for s, t in zip(spread, terms, strict=True))
        gain_over = variance + (self._noise * scale) ** 2
        gain = [s / gain_over for s in spread]
        fade = self._fade if variance < scale**2 and self._may_forget() else 1.0
        size = range(len(terms))
        for row in size:
            for column in size:
                cover[row][column] = (cover[row][column] - gain[row] * spread[column]) / fade
        for row in size:
            least = self._start[row] / LEAST_ONE_OF
            self.values[row] = max(self.values[row] + gain[row] * error, least)

    def _may_forget(self) -> bool:
        """Whether no value is more doubtful than it was at first.

        Where all observations are alike they say nothing of the single terms, and to go on
        forgetting what others said would let the doubt about these grow beyond any number.
        """
        return all(
            self._cover[row][row] <= (self._doubt * max(value, self._start[row])) ** 2
            for row, value in enumerate(self.values)
        )
