"""One simulated replica as the router meets it: an engine behind a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from loadgen.engine.engine import Engine
from loadgen.engine.sequence import Event, EventKind, Leg, Sequence
from loadgen.simulate.gaps import EngineGaps
from router.core.request import Failure
from router.core.request import Leg as Part
from router.core.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadgen.simulate.agenda import Agenda
    from loadgen.simulate.gaps import TokenGaps
    from loadgen.simulate.settings import ReplicaPlan
    from loadgen.simulate.workload import Planned
    from router.core.replica import Replica
    from router.core.request import Attempt


_LEGS = {Part.WHOLE: Leg.WHOLE, Part.PREFILL: Leg.PREFILL, Part.DECODE: Leg.DECODE}

TOKENS_AT_ONCE = 16
"""So many tokens of a stream are told of in one call; as in :mod:`router.proxy.relay`."""


class Router(Protocol):
    """Who hears of what a replica answers, once the network has carried it."""

    def rejected(self, attempt: Attempt, status: int) -> None:
        """The replica refused the request with ``status``."""

    def first_token(self, attempt: Attempt, sequence: Sequence) -> None:
        """The answer begins."""

    def finished(self, attempt: Attempt, sequence: Sequence, late_gaps: int) -> None:
        """The answer is complete; so many of the gaps between its tokens were too long."""

    def prefilled(self, attempt: Attempt, station: Station, sequence: Sequence) -> None:
        """The prompt of a split request was computed; ``station`` keeps its KV."""

    def kv_room(self, attempt: Attempt, station: Station, sequence: Sequence) -> None:
        """``station`` has room for the KV of a split request."""

    def broke(self, attempt: Attempt, failure: Failure) -> None:
        """There was no connection, or it broke."""

    def streamed(self, attempt: Attempt, tokens: int) -> None:
        """``tokens`` more tokens came; told in sums, not one by one."""


class Station:
    """A replica.

    Args:
        replica: The router's view of it.
        plan: What it is.
        key_tokens: Tokens that a prefix key stands for; None: there are no keys.
        agenda: Time.
        network_s: How long a message takes.
        router: Who hears of answers.
        gaps: Where gaps between tokens are counted.
        late_s: A longer gap is counted as a late one of its answer.

    Raises:
        ValueError: A size makes no sense.
    """

    def __init__(
        self,
        replica: Replica,
        plan: ReplicaPlan,
        *,
        key_tokens: int | None,
        agenda: Agenda,
        network_s: float,
        router: Router,
        gaps: TokenGaps,
        late_s: float,
    ) -> None:
        self.replica = replica
        self.plan = plan
        self._key_tokens = key_tokens
        self._agenda = agenda
        self._network_s = network_s
        self._router = router
        self._gaps = gaps
        self._late_s = late_s
        self._slow = 1.0
        self._attempts: dict[Sequence, Attempt] = {}
        self._sequences: dict[Attempt, Sequence] = {}
        self._streams: dict[Attempt, Sequence] = {}
        """Answers of which the router has the first token and not the last."""
        self._due_s: float | None = None
        self._earlier_preemptions = 0
        self._hung_s: float | None = None
        self.silent = False
        """Whether the router's looks come to nothing, for it hangs."""
        self.engine: Engine | None = self._new_engine()

    # -- what the router sends ----------------------------------------------------------------

    def receive(self, attempt: Attempt, planned: Planned) -> None:
        """A request has come over the network."""
        engine = self.engine
        if engine is None:
            self._agenda.after(self._network_s, self._router.broke, attempt, Failure.CONNECT)
            return
        leg = _LEGS[attempt.leg]
        output_tokens = 1 if leg is Leg.PREFILL else planned.output_tokens
        tokens = planned.prompt_tokens + output_tokens
        if tokens > min(engine.kv_tokens, self.plan.profile.max_model_tokens):
            self._agenda.after(self._network_s, self._router.rejected, attempt, 400)
            return
        sequence = Sequence(planned.prompt_tokens, output_tokens, planned.keys, leg)
        self._attempts[sequence] = attempt
        self._sequences[attempt] = sequence
        engine.submit(sequence, self._agenda.now_s)
        self._arm(engine)

    def cancel(self, attempt: Attempt) -> None:
        """The router has closed the connection of an attempt."""
        engine = self.catch_up()
        sequence = self._sequences.get(attempt)
        if engine is None or sequence is None:
            return
        self._forget(sequence)
        engine.abort(sequence, self._agenda.now_s)
        self._arm(engine)

    def kv_arrived(self, sequence: Sequence) -> None:
        """The KV of a split request has come."""
        engine = self.catch_up()
        if engine is not None and sequence in self._attempts:
            engine.kv_arrived(sequence, self._agenda.now_s)
            self._arm(engine)

    def let_go(self, sequence: Sequence) -> None:
        """Nobody needs the KV any more that is kept of a prompt."""
        engine = self.catch_up()
        if engine is not None:
            engine.let_go(sequence, self._agenda.now_s)
            self._arm(engine)

    def knows(self, attempt: Attempt) -> bool:
        """Whether the request of ``attempt`` has come to it and not ended."""
        return attempt in self._sequences

    # -- what befalls it ----------------------------------------------------------------------

    def die(self) -> None:
        """End at once; all connections break."""
        if self.engine is None:
            return
        self.catch_up()
        self._earlier_preemptions += self.engine.preemptions_total
        self.engine = self._due_s = None
        for attempt in self._sequences:
            self._agenda.after(self._network_s, self._router.broke, attempt, Failure.RESET)
        self._hung_s = None
        self.silent = False
        for kept in (self._attempts, self._sequences, self._streams):
            kept.clear()

    def come_back(self) -> None:
        """Serve again, with an empty cache."""
        self.engine = self._new_engine()

    def hang(self, *, health: bool) -> None:
        """Compute and answer nothing; with ``health`` the looks of the router are answered."""
        engine = self.catch_up()
        if engine is None:
            return
        engine.pause(self._agenda.now_s)
        self._due_s = None
        self._hung_s = self._agenda.now_s
        self.silent = not health

    def resume(self) -> None:
        """Go on where it hung."""
        engine, now = self.engine, self._agenda.now_s
        if engine is None or self._hung_s is None:
            return
        engine.resume(now)
        if self._streams:
            self._pace.stood_still(now - self._hung_s, len(self._streams))
        self._hung_s = None
        self.silent = False
        self._arm(engine)

    def slow_down(self, factor: float) -> None:
        """Make steps ``factor`` times as long as the plan says."""
        self._slow = factor
        if self.engine is not None:
            self.engine.set_slowdown(self._slowdown, self._agenda.now_s)
            self._arm(self.engine)

    # -- what is seen of it -------------------------------------------------------------------

    @property
    def preemptions(self) -> int:
        """Preemptions since the start, deaths or not."""
        now = 0 if self.engine is None else self.engine.preemptions_total
        return self._earlier_preemptions + now

    def sample(self) -> Sample | None:
        """Its gauges as they are now; None when nobody answers.

        What it has streamed until then is reported too.
        """
        self.report_progress()
        engine = self.catch_up()
        if engine is None:
            return None
        return Sample(
            running=len(engine.running),
            waiting=len(engine.waiting),
            kv_occupancy=engine.kv_occupancy,
            preemptions_total=engine.preemptions_total,
            prefix_queries_total=engine.prefix_queries_total,
            prefix_hits_total=engine.prefix_hits_total,
            kv_block_tokens=self.plan.profile.block_tokens,
            kv_blocks=engine.kv_blocks,
        )

    def report_progress(self) -> None:
        """Tell the router of the streams that have come further since it was last told.

        As in the data plane, it is told of several tokens at a time.
        """
        if not self._streams:
            return
        engine = self.catch_up()
        if engine is None:
            return
        generated, streamed = engine.generated, self._router.streamed
        for attempt, sequence in list(self._streams.items()):
            tokens = generated(sequence) - attempt.output_tokens
            if tokens >= TOKENS_AT_ONCE:
                streamed(attempt, tokens)

    def opened(self, attempt: Attempt) -> None:
        """The router has the first token of an answer."""
        sequence = self._sequences.get(attempt)
        if sequence is not None:
            self._streams[attempt] = sequence

    def closed(self, attempt: Attempt) -> None:
        """The router has the whole answer."""
        self._streams.pop(attempt, None)

    # -- inside -------------------------------------------------------------------------------

    @property
    def _slowdown(self) -> float:
        return self._slow / self.plan.speed

    def _new_engine(self) -> Engine:
        engine = Engine(
            self.plan.profile,
            kv_tokens=self.plan.kv_tokens,
            max_batched_tokens=self.plan.max_batched_tokens,
            key_tokens=self._key_tokens,
            now=self._agenda.now_s,
        )
        engine.set_slowdown(self._slowdown, self._agenda.now_s)
        self._pace = EngineGaps(self._gaps, self._late_s)
        return engine

    def _arm(self, engine: Engine) -> None:
        due_s = engine.next_event_s()
        if due_s != self._due_s:
            self._due_s = due_s
            if due_s is not None:
                self._agenda.at(due_s, self._due, due_s)

    def _due(self, due_s: float) -> None:
        if due_s == self._due_s:  # else it was planned anew meanwhile
            self.catch_up()

    def catch_up(self) -> Engine | None:
        """Bring the engine to the present; None when there is none."""
        engine, due_s, now = self.engine, self._due_s, self._agenda.now_s
        if engine is None or due_s is None:
            return engine  # it is idle
        if now < due_s:
            if now > engine.now_s:
                engine.advance(now)  # there is nothing to report before it is due
            return engine
        self._due_s = None
        self._take(engine, engine.advance(now))
        self._arm(engine)
        return engine

    def _take(self, engine: Engine, events: list[Event]) -> None:
        """Take what happened at the end of a run of equal steps."""
        ended: list[Sequence] = []
        first_tokens = sum(event.kind is EventKind.FIRST_TOKEN for event in events)
        pace = self._pace
        pace.count(engine, first_tokens, self._agenda.now_s)
        for kind, sequence, at_s in events:
            if sequence.leg is Leg.PREFILL:
                if kind is EventKind.FINISHED:
                    attempt = self._attempts[sequence]
                    self._agenda.after(
                        self._network_s, self._router.prefilled, attempt, self, sequence
                    )
                    ended.append(sequence)
            elif kind is EventKind.KV_ROOM:
                self._router.kv_room(self._attempts[sequence], self, sequence)
            elif kind is EventKind.FIRST_TOKEN:
                pace.began(sequence)
                self._send(self._router.first_token, sequence)
            elif kind is EventKind.FINISHED:
                self._send(self._router.finished, sequence, pace.late(sequence))
                ended.append(sequence)
            elif sequence.generated and sequence in self._attempts:
                pace.preempted(sequence, at_s)
        for sequence in ended:
            self._forget(sequence)

    def _send(self, call: Callable[..., None], sequence: Sequence, *more: object) -> None:
        self._agenda.after(self._network_s, call, self._attempts[sequence], sequence, *more)

    def _forget(self, sequence: Sequence) -> None:
        del self._sequences[self._attempts.pop(sequence)]
        self._pace.forget(sequence)
