"""Who takes part in a step: running sequences first, then waiting ones."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from loadgen.engine.decodes import Decodes
from loadgen.engine.sequence import Leg, Sequence, State

if TYPE_CHECKING:
    from loadgen.engine.kv_cache import KvCache


class Batch:
    """The running and the waiting sequences.

    At most one running sequence is in the middle of its prefill, and it is the one admitted last:
    a prefill is cut only by the end of the budget, and then nobody is admitted behind it.
    """

    __slots__ = (
        "_cache",
        "decodes",
        "fetching",
        "max_sequences",
        "max_tokens",
        "pinned",
        "preemptions_total",
        "running",
        "waiting",
    )

    def __init__(self, cache: KvCache, max_tokens: int, max_sequences: int) -> None:
        self._cache = cache
        self.max_tokens = max_tokens
        """Token budget of a step."""
        self.max_sequences = min(max_sequences, max_tokens)
        """Seats: never more than the budget, for each running sequence needs a token a step."""
        self.decodes = Decodes(cache.block_tokens)
        self.running: dict[Sequence, None] = {}
        """In the order in which they were admitted."""
        self.waiting: deque[Sequence] = deque()
        self.fetching: dict[Sequence, None] = {}
        """Decode legs that have room and wait for their KV."""
        self.pinned: dict[Sequence, None] = {}
        """Prefill legs that are over and keep their blocks."""
        self.preemptions_total = 0

    def form(self, now: float) -> tuple[list[Sequence], list[Sequence], list[Sequence]]:
        """Choose who takes part in the next step, besides all decodes.

        Returns:
            The sequences in prefill, each with its chunk noted; those that had to give way; and
            decode legs whose KV may come.
        """
        preempted = self._make_room()
        chunks: list[Sequence] = []
        roomy: list[Sequence] = []
        budget = self.max_tokens - self.decodes.number
        last = next(reversed(self.running), None)
        if last is not None and last.state is State.PREFILL and budget:
            if self._cache.extend(last, budget):
                chunks.append(last)
                budget -= last.chunk_tokens
            else:
                preempted.append(self._preempt(last))
        if not preempted:
            self._admit(budget, chunks, roomy, now)
        return chunks, preempted, roomy

    def steps_alike(self) -> int:
        """How many steps the decodes, alone, can do before anything changes for them."""
        affordable = 1 + self.decodes.steps_within(self._cache.pool.available)
        return min(self.decodes.steps_to_next_end(), affordable)

    def remove(self, sequence: Sequence, *, in_step: bool) -> None:
        """Take a running sequence out and free its blocks."""
        slots = 0
        if sequence.state is State.DECODE:
            self.decodes.leave(sequence)
            slots = sequence.computed_tokens + in_step
        self.end(sequence, slots)
        sequence.chunk_tokens = 0

    def end(self, sequence: Sequence, slots: int) -> None:
        """Free the seat and the blocks of a sequence that is not in decode any more."""
        self._cache.release(sequence, slots)
        del self.running[sequence]

    def pin(self, sequence: Sequence) -> None:
        """Free the seat of a prefill leg that is over, and keep its blocks."""
        del self.running[sequence]
        self.pinned[sequence] = None

    def arrived(self, sequence: Sequence) -> None:
        """The KV of a decode leg is there: all but the last token of its prompt is computed."""
        del self.fetching[sequence]
        sequence.state = State.WAITING
        sequence.kv_came = True
        sequence.computed_tokens = sequence.goal_tokens - 1
        self.waiting.appendleft(sequence)

    def drop(self, sequence: Sequence) -> bool:
        """Forget a sequence that does not run, and free its blocks; False when it does run."""
        if sequence.state is State.WAITING:
            self.waiting.remove(sequence)
        elif sequence in self.fetching:
            del self.fetching[sequence]
        elif sequence in self.pinned:
            del self.pinned[sequence]
        else:
            return False
        if sequence.held_blocks:
            self._cache.release(sequence, 0)
        return True

    def _make_room(self) -> list[Sequence]:
        """Give each decode its block; those admitted last give way when blocks are lacking."""
        preempted = []
        while (blocks := self.decodes.blocks_for(0, 1)) > self._cache.pool.available:
            preempted.append(self._preempt(next(reversed(self.running))))
        if blocks:
            self._cache.pool.take(blocks)
        return preempted

    def _preempt(self, sequence: Sequence) -> Sequence:
        self.remove(sequence, in_step=False)
        sequence.state = State.WAITING
        sequence.goal_tokens = sequence.prompt_tokens + sequence.generated
        sequence.preemptions += 1
        self.preemptions_total += 1
        self.waiting.appendleft(sequence)
        return sequence

    def _admit(
        self, budget: int, chunks: list[Sequence], roomy: list[Sequence], now: float
    ) -> None:
        while self.waiting and budget and len(self.running) < self.max_sequences:
            sequence = self.waiting[0]
            if sequence.leg is Leg.DECODE and not sequence.kv_came:
                if not self._cache.reserve(sequence):
                    return
                self.waiting.popleft()
                self.fetching[sequence] = None
                sequence.state = State.FETCHING
                roomy.append(sequence)
                continue
            chunk = self._begin(sequence, budget)
            if not chunk:
                return
            self.waiting.popleft()
            self.running[sequence] = None
            sequence.state = State.PREFILL
            if sequence.admitted_s is None:
                sequence.admitted_s = now
            chunks.append(sequence)
            budget -= chunk

    def _begin(self, sequence: Sequence, budget: int) -> int:
        """Make room for the first chunk, of which a decode leg has seen to already."""
        if not sequence.held_blocks:
            return self._cache.start(sequence, budget)
        return sequence.chunk_tokens if self._cache.extend(sequence, budget) else 0
