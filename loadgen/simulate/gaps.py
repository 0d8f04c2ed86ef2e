"""Gaps between tokens, counted instead of kept: a simulation has millions of them."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING

from loadgen.engine.sequence import State

if TYPE_CHECKING:
    from loadgen.engine.engine import Engine
    from loadgen.engine.sequence import Sequence

RESOLUTION_S = 1e-5
"""Gaps are told apart by this much; an engine step takes some 10 ms."""


class TokenGaps:
    """How often each gap between two tokens of one answer occurred, all answers together."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, gap_s: float, times: int = 1) -> None:
        """Note ``times`` gaps of ``gap_s``."""
        self._counts[round(gap_s / RESOLUTION_S)] += times

    def quantile(self, share: float) -> float | None:
        """The gap that at least ``share`` of all do not exceed, in seconds; None without any.

        By nearest rank, as :func:`loadgen.quantiles.nearest_rank`, but over counted values.
        """
        rank = max(ceil(share * self._counts.total()), 1)
        for gap in sorted(self._counts):
            rank -= self._counts[gap]
            if rank <= 0:
                return gap * RESOLUTION_S
        return None


class EngineGaps:
    """Counts the gaps of one engine's answers, by what its counters say between two looks.

    Args:
        gaps: Where they are counted.
        late_s: A longer gap is late.
    """

    def __init__(self, gaps: TokenGaps, late_s: float) -> None:
        self._gaps = gaps
        self._late_s = late_s
        self._late_steps = 0
        """Steps so far that were longer than that: a late gap for all in decode."""
        self._late_before: dict[Sequence, int] = {}
        """Those of them that were none for an answer."""
        self._steps = self._tokens = 0
        self._busy_s = 0.0
        self._preempted: dict[Sequence, tuple[float, int]] = {}
        """When sequences that gave way had their last token, of those that had any; and the late
        steps until then."""

    def began(self, sequence: Sequence) -> None:
        """A sequence has its first token."""
        self._late_before[sequence] = self._late_steps

    def late(self, sequence: Sequence) -> int:
        """How many gaps of a sequence were late so far."""
        return self._late_steps - self._late_before[sequence]

    def preempted(self, sequence: Sequence, at_s: float) -> None:
        """A sequence that has some tokens gave way."""
        self._preempted.setdefault(sequence, (at_s, self._late_steps))

    def stood_still(self, seconds: float, streams: int) -> None:
        """The engine made a pause in the middle of a step."""
        self._gaps.add(seconds, streams)
        self._late_steps += seconds > self._late_s

    def forget(self, sequence: Sequence) -> None:
        """A sequence ended, or was aborted."""
        self._preempted.pop(sequence, None)
        self._late_before.pop(sequence, None)

    def count(self, engine: Engine, first_tokens: int, now: float) -> None:
        """Count what came since the last call.

        All steps since then were alike, so one gap stands for all of them.

        Args:
            engine: The engine.
            first_tokens: How many of the tokens were the first of an answer.
            now: The time.
        """
        steps = engine.steps_total - self._steps
        if not steps:
            return
        gap_s = (engine.busy_s_total - self._busy_s) / steps
        tokens = engine.generated_tokens_total - self._tokens - first_tokens
        if self._preempted:
            tokens -= self._count_resumed(now)
        if tokens:
            self._gaps.add(gap_s, tokens)
        if gap_s > self._late_s:
            self._late_steps += steps
        self._steps = engine.steps_total
        self._tokens = engine.generated_tokens_total
        self._busy_s = engine.busy_s_total

    def _count_resumed(self, now: float) -> int:
        """Count the gaps of those that gave way and have a token again; how many they are."""
        over = [s for s in self._preempted if s.state in {State.DECODE, State.FINISHED}]
        for sequence in over:
            at_s, late_steps = self._preempted.pop(sequence)
            self._gaps.add(now - at_s)
            others = self._late_steps - late_steps
            self._late_before[sequence] += others - (now - at_s > self._late_s)
        return len(over)
