"""What the present load of one replica will cost whoever comes next, and those already there.

Everything here is arithmetic on what the router has seen; who learns stands in
``router.core.estimator``. Policies read it, and change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
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

    :meth:`look` brings ``queue_s``, ``queue_tokens`` and ``step_s`` to that time.
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
    version: int = 0
    """Counts requests sent, first tokens and ends."""

    queue_s: float = field(default=0.0, compare=False)
    """Until a request sent now would have its turn."""
    queue_tokens: float = field(default=0.0, compare=False)
    """Prefill tokens that are ahead of a request sent now."""
    step_s: float = field(default=0.010, compare=False)
    """Between two tokens of each stream there, as things are."""

    _looked_s: float = field(default=-1.0, compare=False)
    _looked_version: int = field(default=-1, compare=False)
    _known: dict[int, tuple[float, float]] = field(default_factory=dict, compare=False)
    _known_until_s: float = field(default=-1.0, compare=False)
    _known_version: int = field(default=-1, compare=False)
    _peak_tokens: float = field(default=0.0, compare=False)
    _peak_until_s: float = field(default=-1.0, compare=False)
    _peak_context_tokens: int = field(default=0, compare=False)

    def look(self) -> None:
        """Bring the forecast to the time of its clock."""
        now = self.clock.now_s
        if now == self._looked_s and self.version == self._looked_version:
            return
        self._looked_s, self._looked_version = now, self.version
        streams = len(self.streams) + self.foreign_streams
        self.step_s = self.speed.step_time_s(streams, self.context_tokens)
        queue_s, queue_tokens = self.prefill_s, float(self.prefill_tokens)
        if self.prefills:
            head = next(iter(self.prefills.values()))
            worked_s = now - max(head.sent_s, self.prefilled_s)
            done = min(worked_s / head.time_s, 1.0)
            queue_s -= done * head.time_s
            queue_tokens -= done * head.new_tokens
            if self.foreign_waiting:
                share = self.foreign_waiting / len(self.prefills)
                queue_s += share * self.prefill_s
        self.queue_s, self.queue_tokens = queue_s, queue_tokens

    def harm(self, prefill_s: float, new_tokens: float, pressure: float) -> float:
        """Objectives of streams here that one prefill more is expected to break.

        Streams have a budget: their objective times the tokens so far, less the time that these
        took. One whose budget is overdrawn by the stalls ahead is saved only if it lives long
        enough to earn it back. That is what this prefill breaks if none comes after it. The
        nearer the fleet is to its limit (``pressure``, 0 to 1), the surer more of them follow, so
        the more counts the share that it takes of the budget of each stream's whole life.

        Args:
            prefill_s: How long the prefill takes.
            new_tokens: How many tokens it computes.
            pressure: How near the fleet is to its limit.
        """
        now = self.clock.now_s
        if now > self._known_until_s or self.version != self._known_version:
            self._known.clear()
            self._known_until_s, self._known_version = now + KNOWN_S, self.version
        bucket = int(4 * log2(prefill_s))
        known = self._known.get(bucket)
        if known is None:
            known = self._known[bucket] = self._weigh(prefill_s, new_tokens)
        broken, taken = known
        return broken + pressure * max(taken - broken, 0.0)

    def _weigh(self, prefill_s: float, new_tokens: float) -> tuple[float, float]:
        """Objectives broken, and shares of budgets taken."""
        now, step_s, speed = self.clock.now_s, self.step_s, self.speed
        broken = taken = 0.0
        for stream in self.tight.values():
            tpot_s = stream.tpot_s
            stall_s = speed.stall_s(prefill_s, new_tokens, tpot_s)
            if not stall_s:
                continue
            gain_s = max(tpot_s - step_s, LEAST_GAIN_S)
            tokens = stream.tokens + min((now - stream.seen_s) / step_s, UNSEEN_TOKENS)
            before_s = stream.debt_s(now, tokens)
            if self.queue_s:
                before_s += speed.stall_s(self.queue_s, self.queue_tokens, tpot_s)
            survival = stream.survival
            budget_s = survival.remaining_tokens(tokens) * gain_s - before_s
            if budget_s > 0:
                taken += min(stall_s / budget_s, 1.0)
            after_s = before_s + stall_s
            if after_s > 0:
                broken += survival.ends_within(tokens, after_s / gain_s)
                if before_s > 0:
                    broken -= survival.ends_within(tokens, before_s / gain_s)
        for prefill in self.prefills.values():
            stall_s = speed.stall_s(prefill_s, new_tokens, prefill.tpot_s)
            if stall_s:
                gain_s = max(prefill.tpot_s - step_s, LEAST_GAIN_S)
                survival = prefill.survival
                broken += survival.ends_within(1, stall_s / gain_s)
                taken += min(stall_s / (gain_s * survival.remaining_tokens(1)), 1.0)
        return broken, taken

    def kv_tokens(self) -> float:
        """Tokens of KV in use once all prefills sent there are done."""
        return self.kv_share * self.context_tokens

    def peak_tokens(self) -> float:
        """Tokens of context at the peak to come, if nothing more were sent here.

        Streams grow until they end: after ``h`` more tokens each is still there with the chance
        that its survival curve gives, and holds ``h`` tokens more.
        """
        now = self.clock.now_s
        if now > self._peak_until_s:
            self._peak_until_s = now + PEAK_KNOWN_S
            self._peak_context_tokens = self.context_tokens
            self._peak_tokens = max(self._tokens_after(more) for more in HORIZONS_TOKENS)
        return self._peak_tokens + self.context_tokens - self._peak_context_tokens

    def _tokens_after(self, more: float) -> float:
        held = 0.0
        for stream in self.streams.values():
            left = 1 - stream.survival.ends_within(stream.tokens, more) if more else 1.0
            held += (stream.context_tokens + more) * left
        for prefill in self.prefills.values():
            left = prefill.survival.alive(more) if more else 1.0
            held += (prefill.new_tokens + prefill.cached_tokens + more) * left
        return held
