"""Drives the engine in real time: the one place where virtual and real time meet.

One timer is set to the end of the engine's step; when it goes off, everybody who streams gets
the tokens of that step. While nobody streams, whole runs of steps pass at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadgen.engine.sequence import EventKind, Sequence
from loadgen.replica.clock import Lag, VirtualClock

if TYPE_CHECKING:
    import asyncio

    from loadgen.engine.engine import Engine
    from loadgen.replica.statistics import Statistics


class Listener(Protocol):
    """Who waits for the tokens of a sequence."""

    finish_reason: str

    def kv_room(self) -> None:
        """The engine has room for its KV, which is to come from elsewhere."""

    def progress(self, generated: int) -> None:
        """There are ``generated`` tokens by now; only for those that stream."""

    def finished(self) -> None:
        """All tokens are there."""


class EngineDriver:
    """Keeps an engine at the time that its clock shows."""

    def __init__(
        self,
        engine: Engine,
        clock: VirtualClock,
        statistics: Statistics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.lag = Lag()
        self._loop = loop
        self._statistics = statistics
        self._listeners: dict[Sequence, Listener] = {}
        self._streaming: dict[Sequence, Listener] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_s: float | None = None
        self._arming: asyncio.Handle | None = None
        self._seen_s = 0.0
        self._seen_steps = self._seen_tokens = self._seen_prefilled = 0

    @property
    def open(self) -> int:
        """Sequences that somebody waits for."""
        return len(self._listeners)

    def submit(self, sequence: Sequence, listener: Listener, *, streams: bool) -> None:
        """Hand ``sequence`` to the engine.

        Raises:
            ValueError: It can never fit into the KV cache.
        """
        self.engine.submit(sequence, self._now_s())
        self._listeners[sequence] = listener
        if streams:
            self._streaming[sequence] = listener
        self._arm_soon()

    def abort(self, sequence: Sequence) -> None:
        """Nobody waits for ``sequence`` any more: its blocks are freed at once."""
        if self._listeners.pop(sequence, None) is None:
            return
        self._streaming.pop(sequence, None)
        self.engine.abort(sequence, self._now_s())
        self._statistics.finished_total["abort"] += 1
        self._arm_soon()

    def kv_arrived(self, sequence: Sequence) -> None:
        """The KV of a decode leg has come; one that was dropped is left alone."""
        if sequence in self._listeners:
            self.engine.kv_arrived(sequence, self._now_s())
            self._arm_soon()

    def let_go(self, sequence: Sequence) -> None:
        """Free what a prefill leg that is over has kept."""
        self.engine.let_go(sequence, self._now_s())
        self._arm_soon()

    def refresh(self) -> None:
        """Bring the engine, and who waits for it, to the present."""
        self._pass(self._now_s())
        self._arm_soon()

    def set_slowdown(self, factor: float) -> None:
        """Make steps ``factor`` times as long from the next one on."""
        self.engine.set_slowdown(factor, self._now_s())
        self._arm_soon()

    def pause(self) -> None:
        """Stand still in the middle of the step."""
        self.engine.pause(self._now_s())
        self._arm_soon()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self.engine.resume(self._now_s())
        self._arm_soon()

    def close(self) -> None:
        """Let go of the timers."""
        for handle in (self._timer, self._arming):
            if handle is not None:
                handle.cancel()
        self._timer = self._arming = self._due_s = None

    def _now_s(self) -> float:
        """Virtual time, which stands still until the timer is set again.

        So all that comes in one turn of the loop comes at one moment, and may share a step.
        """
        return self.clock.now_s() if self._arming is None else self.engine.now_s

    def _arm_soon(self) -> None:
        if self._arming is None:
            self._arming = self._loop.call_soon(self._arm)

    def _arm(self) -> None:
        self._arming = None
        due_s = self.engine.next_step_s() if self._streaming else self.engine.next_event_s()
        if due_s == self._due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_s, self._timer = due_s, None
        if due_s is not None:
            self._timer = self._loop.call_at(self.clock.loop_s(due_s), self._fire, due_s)

    def _fire(self, due_s: float) -> None:
        self._timer = self._due_s = None
        now_s = self.clock.now_s()
        self.lag.note((now_s - due_s) / self.clock.speed, self._loop.time())
        self._pass(max(now_s, due_s))  # timers round, and may be early by a fraction
        self._arm()

    def _pass(self, until_s: float) -> None:
        first_tokens = 0
        for event in self.engine.advance(until_s):
            sequence = event.sequence
            if event.kind is EventKind.FIRST_TOKEN:
                first_tokens += 1
                self._statistics.first_token(sequence)
            elif event.kind is EventKind.FINISHED:
                self._finish(sequence)
            elif event.kind is EventKind.KV_ROOM and sequence in self._listeners:
                self._listeners[sequence].kv_room()
        self._observe(first_tokens)
        if self._streaming:
            generated, streaming = self.engine.generated, self._streaming
            for sequence in self.engine.running:
                listener = streaming.get(sequence)
                if listener is not None:
                    listener.progress(generated(sequence))

    def _finish(self, sequence: Sequence) -> None:
        listener = self._listeners.pop(sequence, None)
        if listener is None:
            return
        self._statistics.finished(sequence, listener.finish_reason)
        if self._streaming.pop(sequence, None) is not None:
            listener.progress(sequence.output_tokens)
        listener.finished()

    def _observe(self, first_tokens: int) -> None:
        """Count the steps since the last look; within a run of steps they are nearly alike."""
        engine = self.engine
        steps = engine.steps_total - self._seen_steps
        if steps:
            tokens = engine.generated_tokens_total - self._seen_tokens
            prefilled = engine.prefilled_tokens_total - self._seen_prefilled
            gap_s = (engine.busy_s_total - self._seen_s) / steps
            if tokens > first_tokens:
                self._statistics.itl_s.observe(gap_s, tokens - first_tokens)
            self._statistics.step_tokens.observe((tokens + prefilled) / steps, steps)
            self._seen_steps += steps
            self._seen_tokens += tokens
            self._seen_prefilled += prefilled
            self._seen_s = engine.busy_s_total
