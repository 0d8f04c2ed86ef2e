"""What the present load of one replica will cost whoever comes next, and those already there.

Everything here is arithmetic on what the router has seen; who learns stands in
``router.core.estimator``. Policies read it, and change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log2
from typing import TYPE_CHECKING, Any

import msgspec

from policies.speed import Speed

if TYPE_CHECKING:
    from policies.survival import Survival

UNSEEN_TOKENS = 16.0
"""The router is told of streamed tokens so many at a time."""

KNOWN_S = 0.01
"""So long the harm done by a prefill of some length is not computed again."""

PEAK_KNOWN_S = 0.5
"""The same for the KV cache's use at its peak, which moves slowly."""

HORIZONS_TOKENS = (0.0, 100.0, 400.0, 1600.0, 6400.0)
"""Output tokens ahead at which the use of the KV cache is foreseen."""

LATER = tuple(enumerate(HORIZONS_TOKENS))[1:]

MOST_KV_WAIT_S = 3600.0

CLOSE_S = 3.0
"""A stream that is further ahead of its objective has no budget that many prefills could use up."""

STALL_S = 0.1
"""A gap between two tokens that people notice."""

LEAST_ALIVE = 1e-9
"""A stream that has outlived all but this share of the answers is expected to end at once."""

LEAST_GAIN_S = 1e-3
"""What a stream earns back with each token, where its steps leave it nothing."""


@dataclass(slots=True)
class Clock:
    """The time at which forecasts are made; whoever drives the router sets it."""

    now_s: float = 0.0


class Prefill(msgspec.Struct, gc=False):
    """A request sent to a replica whose first token has not come."""

    sent_s: float
    new_tokens: int
    cached_tokens: int
    time_s: float
    """Expected, by itself."""
    tpot_s: float
    """Its objective."""
    survival: Survival


@dataclass(slots=True)
class Stream:
    """An answer on its way."""

    began_s: float
    """When its first token came."""
    seen_s: float
    """When ``tokens`` were counted."""
    tokens: int
    context_tokens: int
    """Prompt and output so far."""
    tpot_s: float
    """Its objective."""
    survival: Survival

    def debt_s(self, now: float, tokens: float) -> float:
        """How far behind its objective it is; below 0: ahead of it."""
        return now - self.began_s - self.tpot_s * (tokens - 1)


@dataclass(slots=True)
class Forecast:
    """What is expected of one replica, at the time of its clock.

    :meth:`look` brings ``queue_s`` and ``queue_tokens`` to that time.
    """

    clock: Clock
    speed: Speed = field(default_factory=Speed)
    prefills: dict[Any, Prefill] = field(default_factory=dict)
    """In the order in which they were sent; keys are attempts."""
    streams: dict[Any, Stream] = field(default_factory=dict)
    tight: dict[Any, Stream] = field(default_factory=dict)
    """Those of ``streams`` that a prefill might bring to miss their objective."""
    prefill_s: float = 0.0
    """Sum of the expected times of ``prefills``."""
    prefill_tokens: int = 0
    """Sum of their uncached tokens."""
    context_tokens: int = 0
    """Tokens of KV that own attempts hold, or will hold once they are prefilled."""
    waiting_tokens: int = 0
    """Those of ``context_tokens`` that ``prefills`` will hold."""
    kv_share: float = 1.0
    """KV tokens in use for each of the tokens that streams have: prefixes are shared."""
    prefilled_s: float = 0.0
    """When the last prefill ended."""
    foreign_waiting: int = 0
    """Requests waiting there that are not this router's."""
    foreign_streams: int = 0
    """Requests running there that are not this router's."""
    foreign_seen: int = 0
    """Both together at the last look; what two looks agree on is believed."""
    late_share: float = 0.0
    """Share of the streams that ended of late whose tokens took longer than their objective."""
    seats: int | None = None
    """Requests that the engine works on at once; None: as many as come, as far as is known."""
    version: int = 0
    """Counts requests sent, first tokens and ends."""

    queue_s: float = field(default=0.0, compare=False)
    """Until a request sent now would have its turn."""
    queue_tokens: float = field(default=0.0, compare=False)
    """Prefill tokens that are ahead of a request sent now."""

    _seat_s: float = field(default=0.0, compare=False)
    """How long a request there is expected to hold its seat from now on, on average."""
    _seat_until_s: float = field(default=-1.0, compare=False)

    _known: dict[int, tuple[float, float, bool]] = field(default_factory=dict, compare=False)
    _known_until_s: float = field(default=-1.0, compare=False)
    _known_version: int = field(default=-1, compare=False)
    _peak_tokens: float = field(default=0.0, compare=False)
    _peak_until_s: float = field(default=-1.0, compare=False)
    _peak_context_tokens: int = field(default=0, compare=False)

    def look(self) -> float:
        """Bring the forecast to the time of its clock; returns ``queue_s``."""
        if not self.prefills:
            self.queue_s = self.queue_tokens = 0.0
            return 0.0
        head = next(iter(self.prefills.values()))
        began_s = max(self.prefilled_s, head.sent_s)
        worked_s = self.clock.now_s - began_s
        queue_s, queue_tokens = self.prefill_s, float(self.prefill_tokens)
        if worked_s < head.time_s:
            queue_s -= worked_s
            queue_tokens -= worked_s / head.time_s * head.new_tokens
        else:
            queue_s -= head.time_s
            queue_tokens -= head.new_tokens
        if self.foreign_waiting:
            queue_s += self.foreign_waiting / len(self.prefills) * self.prefill_s
        self.queue_s, self.queue_tokens = queue_s, queue_tokens
        return queue_s

    def under_way(self) -> tuple[float, float] | None:
        """When the prefill that is its turn began, and when it should end; None: there is none."""
        head = next(iter(self.prefills.values()), None)
        if head is None:
            return None
        began_s = max(self.prefilled_s, head.sent_s)
        return began_s, began_s + head.time_s

    @property
    def taken(self) -> int:
        """Requests there, in a seat or waiting for one."""
        foreign = self.foreign_streams + self.foreign_waiting
        return len(self.prefills) + len(self.streams) + foreign

    @property
    def full(self) -> bool:
        """Whether somebody waits for a seat already; so the next seat is not left empty."""
        return self.seats is not None and self.taken > self.seats

    def seat_wait_s(self) -> float:
        """Until a request sent now would have a seat, from how fast streams end."""
        seats = self.seats
        if seats is None or self.taken < seats:
            return 0.0
        if self.clock.now_s > self._seat_until_s:
            self._seat_until_s = self.clock.now_s + PEAK_KNOWN_S
            left = [s.survival.remaining_tokens(s.tokens) for s in self.streams.values()]
            self._seat_s = self.step_s * sum(left) / len(left) if left else 0.0
        return (self.taken - seats + 1) * self._seat_s / seats

    @property
    def step_s(self) -> float:
        """Between two tokens of each stream there, as things are."""
        streams = len(self.streams) + self.foreign_streams
        return self.speed.step_time_s(streams, self.context_tokens)

    def harm(
        self, prefill_s: float, new_tokens: float, pressure: float, enough: float = inf
    ) -> float:
        """Objectives of streams here that one prefill more is expected to break.

        Streams have a budget: their objective times the tokens so far, less the time that these
        took. One whose budget is overdrawn by the stalls ahead is saved only if it lives long
        enough to earn it back. That is what this prefill breaks if none comes after it. The
        nearer the fleet is to its limit (``pressure``, 0 to 1), the surer more of them follow, so
        the more counts the share that it takes of the budget of each stream's whole life.

        Args:
            prefill_s: How long the prefill takes.
            new_tokens: How many tokens it computes.
            pressure: How near the fleet is to its limit; more than 1 counts as 1.
            enough: Harm of which no more need be known than that it is passed: counting stops
                there.
        """
        if not self.tight and not self.prefills:
            return 0.0
        pressure = min(pressure, 1.0)
        now = self.clock.now_s
        if now > self._known_until_s or self.version != self._known_version:
            self._known.clear()
            self._known_until_s, self._known_version = now + KNOWN_S, self.version
        bucket = int(4 * log2(prefill_s))
        known = self._known.get(bucket)
        if known is None or (not known[2] and _weighed(known, pressure) <= enough):
            known = self._known[bucket] = self._weigh(prefill_s, new_tokens, pressure, enough)
        return _weighed(known, pressure)

    def _weigh(
        self, prefill_s: float, new_tokens: float, pressure: float, enough: float
    ) -> tuple[float, float, bool]:
        """Objectives broken, shares of budgets taken, and whether that is all of them."""
        now, step_s, speed = self.clock.now_s, self.step_s, self.speed
        broken, taken = self._weigh_prefills(prefill_s, new_tokens, step_s)
        mild = 1 - pressure
        tpot_s = stall_s = ahead_s = 0.0
        gain_s = LEAST_GAIN_S
        for stream in self.tight.values():
            if stream.tpot_s != tpot_s:  # nearly always all are the same
                tpot_s = stream.tpot_s
                stall_s = speed.stall_s(prefill_s, new_tokens, tpot_s)
                gain_s = max(tpot_s - step_s, LEAST_GAIN_S)
                ahead_s = speed.stall_s(self.queue_s, self.queue_tokens, tpot_s)
            if not stall_s:
                continue
            unseen_tokens = (now - stream.seen_s) / step_s
            tokens = stream.tokens + (min(UNSEEN_TOKENS, unseen_tokens))
            before_s = now - stream.began_s - tpot_s * (tokens - 1) + ahead_s
            survival = stream.survival
            alive, remaining_tokens = survival.outlook(tokens)
            if before_s > ahead_s - CLOSE_S:
                budget_s = remaining_tokens * gain_s - before_s
                taken += 0.0 if budget_s <= 0 else stall_s / budget_s if budget_s > stall_s else 1.0
            after_s = before_s + stall_s
            if after_s <= 0:
                continue
            if alive >= LEAST_ALIVE:
                saved = alive if before_s <= 0 else survival.alive(tokens + before_s / gain_s)
                broken += (saved - survival.alive(tokens + after_s / gain_s)) / alive
            elif before_s <= 0:
                broken += 1.0
            if broken > enough or mild * broken + pressure * taken > enough:
                return broken, taken, False
        return broken, taken, True

    def _weigh_prefills(
        self, prefill_s: float, new_tokens: float, step_s: float
    ) -> tuple[float, float]:
        """What is broken and taken of those that will be streams soon."""
        broken = taken = 0.0
        for prefill in self.prefills.values():
            stall_s = self.speed.stall_s(prefill_s, new_tokens, prefill.tpot_s)
            if stall_s:
                gain_s = max(prefill.tpot_s - step_s, LEAST_GAIN_S)
                survival = prefill.survival
                broken += survival.ends_within(1, stall_s / gain_s)
                taken += min(stall_s / (gain_s * survival.remaining_tokens(1)), 1.0)
        return broken, taken

    def stalls(self, prefill_s: float, new_tokens: float) -> float:
        """How often each stream here would stand still, noticeably, because of one more prefill.

        A prefill is cut into the steps that the engine's token budget makes of it, and each of them
        keeps every stream waiting; half of :data:`STALL_S` counts nothing yet.
        """
        steps = 1 + self.speed.steps_per_token * new_tokens
        noticed = min(max(2 * prefill_s / (steps * STALL_S) - 1, 0.0), 1.0)
        return steps * noticed

    def kv_tokens(self) -> float:
        """Tokens of KV in use once all prefills sent there are done."""
        return self.kv_share * self.context_tokens

    def kv_wait_s(self, more_tokens: float, kv_tokens: float) -> float:
        """Until ``more_tokens`` fit into a KV cache of ``kv_tokens``, from how fast streams end.

        A rough figure: streams give back what they hold evenly over the time that their answers
        are expected to last, prefills as if they were streams already. It is no longer than
        :data:`MOST_KV_WAIT_S`, which also stands for never.
        """
        lacking = self.kv_tokens() + more_tokens - kv_tokens
        if lacking <= 0:
            return 0.0
        freed = 0.0
        for stream in self.streams.values():
            freed += stream.context_tokens / stream.survival.remaining_tokens(stream.tokens)
        for prefill in self.prefills.values():
            context_tokens = prefill.new_tokens + prefill.cached_tokens
            freed += context_tokens / prefill.survival.remaining_tokens(1)
        freed_per_s = self.kv_share * freed / self.step_s
        return min(lacking / freed_per_s, MOST_KV_WAIT_S) if freed_per_s else MOST_KV_WAIT_S

    def most_peak_tokens(self) -> float:
        """What :meth:`peak_tokens` cannot pass: a sum instead of a look at each stream."""
        streams = len(self.streams) + len(self.prefills)
        return self.context_tokens + streams * HORIZONS_TOKENS[-1]

    def peak_tokens(self) -> float:
        """Tokens of context at the peak to come, if nothing more were sent here.

        Streams grow until they end: after ``h`` more tokens each is still there with the chance
        that its survival curve gives, and holds ``h`` tokens more.
        """
        now = self.clock.now_s
        if now > self._peak_until_s:
            self._peak_until_s = now + PEAK_KNOWN_S
            self._peak_context_tokens = self.context_tokens
            self._peak_tokens = self._tokens_at_peak()
        return self._peak_tokens + self.context_tokens - self._peak_context_tokens

    def _tokens_at_peak(self) -> float:
        held = [0.0] * len(HORIZONS_TOKENS)
        for stream in self.streams.values():
            tokens, context_tokens, survival = stream.tokens, stream.context_tokens, stream.survival
            alive = survival.alive(tokens)
            held[0] += context_tokens
            if alive >= LEAST_ALIVE:
                for number, more in LATER:
                    left = survival.alive(tokens + more) / alive
                    held[number] += (context_tokens + more) * left
        for prefill in self.prefills.values():
            context_tokens, survival = prefill.new_tokens + prefill.cached_tokens, prefill.survival
            held[0] += context_tokens
            for number, more in LATER:
                held[number] += (context_tokens + more) * survival.alive(more)
        return max(held)


def _weighed(known: tuple[float, float, bool], pressure: float) -> float:
    broken, taken, _ = known
    return broken + pressure * max(taken - broken, 0.0)
