"""The engine: continuous batching as vLLM V1 does it, in virtual time.

Each step takes the running sequences first (one token for each in decode, then what is left of
the token budget for an unfinished prefill), then admits waiting ones, first come first served,
while budget, seats and KV blocks last. When a running sequence finds no block, the one admitted
last gives way: its blocks are freed, it goes to the front of the waiting ones, and its prompt and
answer so far are computed again; in such a step nobody is admitted.

A request may be split over two engines. Its prefill leg keeps its blocks when it is over, until
somebody lets them go. Its decode leg is given room for its prompt first, in its turn; who drives
the engine brings the KV, and then the last token of the prompt is computed and the answer begins.

Who drives it says what time it is. Nothing is computed for each sequence and step: a run of
steps with the same sequences in each is planned once and advanced in closed form (see ``run``
and ``decodes``), so that a simulation of hours takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.engine.batch import Batch
from loadgen.engine.cost import StepCost
from loadgen.engine.kv_cache import KvCache
from loadgen.engine.run import Run
from loadgen.engine.sequence import Event, EventKind, Leg, Sequence, State

if TYPE_CHECKING:
    from collections import abc

    from loadgen.engine.profile import Profile


class Engine:
    """One simulated engine.

    Calls must come in the order of their ``now`` (virtual seconds).

    Args:
        profile: The constants.
        kv_tokens: Tokens in the KV cache, else the profile's.
        max_batched_tokens: Token budget of a step, else the profile's.
        max_sequences: Most sequences running at once, else the profile's, and never more than
            the budget: each of them needs a token in every step.
        key_tokens: Tokens that one prefix key stands for; a block when left out.
        now: When it starts.

    Raises:
        ValueError: A size makes no sense.
    """

    __slots__ = (
        "_batch",
        "_cache",
        "_cost",
        "_events",
        "_paused_s",
        "_run",
        "_slowdown",
        "busy_s_total",
        "generated_tokens_total",
        "now_s",
        "prefilled_tokens_total",
        "steps_total",
    )

    def __init__(
        self,
        profile: Profile,
        *,
        kv_tokens: int | None = None,
        max_batched_tokens: int | None = None,
        max_sequences: int | None = None,
        key_tokens: int | None = None,
        now: float = 0.0,
    ) -> None:
        self._cache = KvCache(
            kv_tokens or profile.kv_tokens, profile.block_tokens, key_tokens or profile.block_tokens
        )
        self._batch = Batch(
            self._cache,
            max_batched_tokens or profile.max_batched_tokens,
            max_sequences or profile.max_sequences,
        )
        self._cost = StepCost(profile)
        self.now_s = now
        self.generated_tokens_total = 0
        self.prefilled_tokens_total = 0
        """Tokens computed in prefill, those computed again after a preemption included."""
        self.steps_total = 0
        self.busy_s_total = 0.0
        """Time spent in steps."""
        self._slowdown = 1.0
        self._paused_s: float | None = None
        self._run: Run | None = None
        self._events: list[Event] = []

    # ----- gauges

    @property
    def running(self) -> abc.Collection[Sequence]:
        """The sequences in the batch, in the order in which they were admitted."""
        return self._batch.running.keys()

    @property
    def waiting(self) -> abc.Collection[Sequence]:
        """The sequences in the queue, in its order."""
        return self._batch.waiting

    @property
    def kv_blocks(self) -> int:
        """Blocks in the KV cache."""
        return self._cache.pool.blocks

    @property
    def kv_blocks_in_use(self) -> int:
        """Blocks that running sequences hold."""
        return self._cache.pool.in_use

    @property
    def fetching(self) -> abc.Collection[Sequence]:
        """Decode legs that have room and wait for their KV."""
        return self._batch.fetching.keys()

    @property
    def pinned(self) -> abc.Collection[Sequence]:
        """Prefill legs that are over and keep their blocks."""
        return self._batch.pinned.keys()

    @property
    def kv_occupancy(self) -> float:
        """Share of the KV blocks that sequences hold, 0 to 1."""
        return self._cache.pool.in_use / self._cache.pool.blocks

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self._cache.pool.blocks * self._cache.block_tokens

    @property
    def max_batched_tokens(self) -> int:
        """Token budget of a step."""
        return self._batch.max_tokens

    @property
    def max_sequences(self) -> int:
        """Most sequences running at once."""
        return self._batch.max_sequences

    @property
    def preemptions_total(self) -> int:
        """How often a sequence had to give way."""
        return self._batch.preemptions_total

    @property
    def prefix_queries_total(self) -> int:
        """Prompt tokens looked up in the prefix cache."""
        return self._cache.prefix_queries_total

    @property
    def prefix_hits_total(self) -> int:
        """Prompt tokens found there."""
        return self._cache.prefix_hits_total

    @property
    def slowdown(self) -> float:
        """Factor on the time of every step."""
        return self._slowdown

    def cached_tokens(self, keys: abc.Sequence[int]) -> int:
        """Tokens that a prompt with these keys would find in the prefix cache."""
        units = self._cache.pool.find(keys, len(keys))
        return sum(unit.blocks for unit in units) * self._cache.block_tokens

    def generated(self, sequence: Sequence) -> int:
        """Output tokens that ``sequence`` has by now."""
        if sequence.state is State.DECODE:
            return self._batch.decodes.generated(sequence)
        return sequence.generated

    # ----- what is done to it

    def submit(self, sequence: Sequence, now: float) -> None:
        """Put ``sequence`` into the queue.

        Raises:
            ValueError: It is not new, or longer than the whole KV cache.
        """
        if sequence.state is not State.NEW:
            raise ValueError(f"{sequence} was submitted before")
        if sequence.tokens_in_all > self.kv_tokens:
            raise ValueError(f"{sequence} can never fit into {self.kv_tokens} tokens of KV cache")
        self._advance(now)
        sequence.state = State.WAITING
        sequence.arrival_s = self.now_s
        if not self._batch.waiting:  # behind others that wait it changes nothing
            self._cut()
        self._batch.waiting.append(sequence)

    def abort(self, sequence: Sequence, now: float) -> None:
        """Forget ``sequence`` and free its blocks at once; one that has ended is left alone."""
        self._advance(now)
        if sequence in self._batch.running:
            self._batch.remove(sequence, in_step=self._run is not None)
        elif not self._batch.drop(sequence):
            return
        sequence.state = State.ABORTED
        self._cut()

    def kv_arrived(self, sequence: Sequence, now: float) -> None:
        """The KV of a decode leg that was given room is there.

        Raises:
            ValueError: It was not given any.
        """
        self._advance(now)
        if sequence.state is not State.FETCHING:
            raise ValueError(f"{sequence} does not wait for its KV")
        self._batch.arrived(sequence)
        self._cut()

    def let_go(self, sequence: Sequence, now: float) -> None:
        """Free the blocks of a prefill leg that is over; what is cached can still be found."""
        self._advance(now)
        if sequence in self._batch.pinned:
            self._batch.drop(sequence)
            self._cut()

    def set_slowdown(self, factor: float, now: float) -> None:
        """Make steps ``factor`` times as long, from the next one on."""
        if not factor > 0:
            raise ValueError(f"a slowdown is a factor above 0, not {factor}")
        self._advance(now)
        self._slowdown = factor
        self._cut()

    def pause(self, now: float) -> None:
        """Stop in the middle of what is under way, until :meth:`resume`."""
        self._advance(now)
        if self._paused_s is None:
            self._paused_s = self.now_s

    def resume(self, now: float) -> None:
        """Go on where :meth:`pause` stopped."""
        self._advance(now)
        if self._paused_s is not None and self._run is not None:
            self._run.start_s += self.now_s - self._paused_s
        self._paused_s = None

    # ----- time

    def next_step_s(self) -> float | None:
        """When the step under way ends; None when there is nothing to do."""
        run = self._planned()
        return None if run is None else run.end_s(run.done + 1)

    def next_event_s(self) -> float | None:
        """The earliest time at which :meth:`advance` may report something; None for never.

        Holds as long as nothing is submitted or aborted.
        """
        run = self._planned()
        if self._events:
            return self.now_s
        return None if run is None else run.end_s(run.steps)

    def advance(self, until_s: float) -> list[Event]:
        """Let time pass.

        Returns:
            What has happened since the last call, in order.
        """
        self._advance(until_s)
        events = self._events
        self._events = []
        return events

    def _advance(self, until_s: float) -> None:
        # what is submitted at the very moment at which a step begins is still in time for it: so
        # nothing is planned before time passes
        while (until_s > self.now_s or self._run is not None) and (run := self._planned()):
            done = run.done_by(until_s)
            if done > run.done:
                self._count(run, done)
            if done < run.steps:
                break
            self.now_s = run.end_s(done)
            self._end(run)
        self.now_s = max(self.now_s, until_s)

    def _planned(self) -> Run | None:
        """The run of steps that is under way, planned now if it is time to."""
        if self._paused_s is not None:
            return None
        if self._run is None and (self._batch.running or self._batch.waiting):
            self._run = self._plan()
        return self._run

    def _plan(self) -> Run | None:
        chunks, preempted, roomy = self._batch.form(self.now_s)
        for sequence in preempted:
            self._report(EventKind.PREEMPTED, sequence)
        for sequence in roomy:
            self._report(EventKind.KV_ROOM, sequence)
        if not self._batch.running and not preempted:
            return None  # what waits finds no room beside what is pinned or on its way
        decodes = self._batch.decodes
        tokens = decodes.number
        seconds = 0.0
        for sequence in chunks:
            new, there = sequence.chunk_tokens, sequence.computed_tokens
            tokens += new
            seconds += self._cost.prefill_attention_s(new, there)
        seconds += self._cost.base_s(tokens, len(self._batch.running))
        seconds += self._cost.context_s * decodes.contexts
        return Run(
            start_s=self.now_s,
            steps=1 if chunks or preempted else self._batch.steps_alike(),
            step_s=self._slowdown * seconds,
            growth_s=self._slowdown * self._cost.context_s * decodes.number,
            chunks=chunks,
        )

    def _cut(self) -> None:
        if self._run is not None:
            self._run.cut()

    def _count(self, run: Run, done: int) -> None:
        """Book the steps of ``run`` up to ``done``, and the blocks of the one then under way."""
        decodes = self._batch.decodes
        started = min(done, run.steps - 1) - run.done
        blocks = decodes.blocks_for(1, started)
        if blocks:
            self._cache.pool.take(blocks)
        steps = done - run.done
        decodes.step += steps
        self.steps_total += steps
        self.busy_s_total += run.end_s(done) - run.end_s(run.done)
        self.generated_tokens_total += steps * decodes.number
        run.done = done

    def _end(self, run: Run) -> None:
        self._run = None
        for sequence in self._batch.decodes.finished():
            self._batch.decodes.leave(sequence)
            self._finish(sequence, sequence.computed_tokens)
        for sequence in run.chunks:
            if sequence.state is not State.PREFILL:
                continue  # aborted in the middle of the step
            self.prefilled_tokens_total += sequence.chunk_tokens
            sequence.computed_tokens += sequence.chunk_tokens
            sequence.chunk_tokens = 0
            if sequence.computed_tokens == sequence.goal_tokens:
                self._prefilled(sequence)

    def _prefilled(self, sequence: Sequence) -> None:
        """The last chunk of a prefill yields a token too."""
        sequence.generated += 1
        self.generated_tokens_total += 1
        if sequence.first_token_s is None:
            sequence.first_token_s = self.now_s
            self._report(EventKind.FIRST_TOKEN, sequence)
        if sequence.generated == sequence.output_tokens:
            sequence.state = State.FINISHED
            self._finish(sequence, 0)
        else:
            self._batch.decodes.join(sequence)

    def _finish(self, sequence: Sequence, slots: int) -> None:
        sequence.finished_s = self.now_s
        if sequence.leg is Leg.PREFILL:
            self._batch.pin(sequence)
        else:
            self._batch.end(sequence, slots)
        self._report(EventKind.FINISHED, sequence)

    def _report(self, kind: EventKind, sequence: Sequence) -> None:
        self._events.append(Event(kind, sequence, self.now_s))
