"""A run of engine steps with the same sequences in each, whose times are known in closed form.

While nobody comes or goes, a decode step differs from the one before only in that every context
is one token longer. So each step takes a constant time more than the one before, and many steps
are as little work here as one.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadgen.engine.sequence import Sequence


class Run:
    """Steps that follow each other without a pause."""

    __slots__ = ("_growth_s", "_step_s", "chunks", "done", "start_s", "steps")

    def __init__(
        self, *, start_s: float, steps: int, step_s: float, growth_s: float, chunks: list[Sequence]
    ) -> None:
        self.start_s = start_s
        self.steps = steps
        """How many steps there are; may be cut down to the one under way."""
        self.done = 0
        """How many of them are over."""
        self.chunks = chunks
        """Sequences in prefill; then there is one step only."""
        self._step_s = step_s
        self._growth_s = growth_s

    def end_s(self, steps: int) -> float:
        """When the first ``steps`` steps are over."""
        return self.start_s + steps * (self._step_s + self._growth_s * (steps - 1) / 2)

    def done_by(self, until_s: float) -> int:
        """How many steps are over at ``until_s``."""
        if until_s >= self.end_s(self.steps):
            return self.steps
        if self.done + 1 >= self.steps or until_s < self.end_s(self.done + 1):
            return self.done
        half = self._growth_s / 2
        linear = self._step_s - half
        elapsed = until_s - self.start_s
        steps = int(2 * elapsed / (linear + sqrt(linear * linear + 4 * half * elapsed)))
        while self.end_s(steps + 1) <= until_s:  # the square root is good to a last digit only
            steps += 1
        while self.end_s(steps) > until_s:
            steps -= 1
        return steps

    def cut(self) -> None:
        """End with the step that is under way: the next one will be planned anew."""
        self.steps = min(self.steps, self.done + 1)
