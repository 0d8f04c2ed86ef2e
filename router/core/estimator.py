"""Keeps a forecast of each replica: what is charged to it, and what is learned of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.forecast import CLOSE_S, Clock, Forecast, Prefill, Stream
from router.core.accuracy import Accuracy
from router.core.lengths import Lengths
from router.core.pace import Pace
from router.core.request import Leg
from router.core.seats import Seats
from router.core.token_ratio import TokenRatio

if TYPE_CHECKING:
    from policies.base import RequestFacts
    from policies.survival import Survival
    from router.core.replica import Replica
    from router.core.request import Attempt

_PREFILL, _DECODE = Leg.PREFILL, Leg.DECODE  # a look-up there costs as much as calling a method

COMFORTABLE_TOKENS = 98_304
"""A stream that is further ahead of its objective than a prefill of so many tokens takes is not
brought to miss it by one."""

NORMAL_STEPS = 4.0
"""Without an objective a token should not take longer than so many steps of now."""

LEARN_KV_FROM = 0.05
"""Share of the KV cache from which on its use tells how much of it is shared."""

LEARN_KV = 0.2
"""Share of what a sample tells of that which is believed."""

LEARN_LATE = 0.01
"""Share of one answer in what is known of how many are late."""

LATE_PREFILL = 1.5
"""The prefill of an answer that is not streamed is taken for done after so many times as long as
expected: it gives no sign of its own."""

CURIOUS_S = 10.0
"""A replica that has shown nothing for so long, and is thought slower than the best, is believed to
be a little faster with each tick, until it is tried again: else one that nobody knows yet, or that
was slow once, would never be asked where others suffice."""

CURIOSITY = 0.01
"""Share by which it is then thought faster at each tick."""

MAX_LENGTHS = 256
"""Models whose lengths are learned apart; names beyond share those of no model."""


class Estimator:
    """Charges each request to its replica when it is sent, and learns from what passes by.

    All of it is this router's own bookkeeping: a metrics page that is late, frozen or missing
    takes nothing away but the sight of what others send there.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.ttft = Accuracy()
        """Errors of predicted times to first token."""
        self.e2e = Accuracy()
        """Errors of predicted times to the end of the answer."""
        self.token_ratio = TokenRatio()
        """Bytes of a prompt in one token."""
        self._lengths: dict[str | None, Lengths] = {}
        self._paces: dict[Replica, Pace] = {}
        self._seats: dict[Replica, Seats] = {}

    def joined(self, replica: Replica) -> None:
        """A replica came, or came back with another engine: nothing of it is known."""
        if replica.forecast is None:
            replica.forecast = Forecast(self.clock)
            self._paces[replica] = Pace(replica.forecast)
            self._seats[replica] = Seats()

    def returned(self, replica: Replica) -> None:
        """A replica is back, perhaps as another process: its engine is the same, its queue empty.

        What it may have slowed down by is forgotten, what was learned of its speed is kept. Own
        attempts that are still open there stay charged until they end.
        """
        forecast = replica.forecast
        if forecast is None:
            return
        forecast.speed.prefill_factor = forecast.speed.step_factor = 1.0
        forecast.foreign_waiting = forecast.foreign_streams = forecast.foreign_seen = 0
        forecast.seats = None
        forecast.version += 1

    def left(self, replica: Replica) -> None:
        """A replica will not be seen again."""
        self._paces.pop(replica, None)
        self._seats.pop(replica, None)

    def survival(self, facts: RequestFacts) -> Survival:
        """The law of lengths that an answer to this request is expected to follow."""
        return self._lengths_of(facts.model).survival

    def expected_tokens(self, facts: RequestFacts) -> float:
        """Mean length of the answers to such requests, and no more than the client wants."""
        tokens, most = self._lengths_of(facts.model).survival.mean_tokens, facts.max_output_tokens
        return tokens if most is None else min(tokens, most)

    def sent(self, attempt: Attempt, now: float) -> None:
        """A request goes to a replica: it is charged at once."""
        replica, facts = attempt.replica, attempt.request.facts
        if replica not in self._paces:
            self.joined(replica)
        forecast = self._paces[replica].forecast
        tokens, cached = facts.prompt_tokens, 0
        if facts.cached:
            cached = min(facts.cached.get(replica.name, 0), tokens - 1)
        new_tokens = tokens - cached or 1
        time_s = forecast.speed.prefill_time_s(new_tokens, cached)
        if attempt.leg is _DECODE:  # its KV comes from elsewhere
            new_tokens, cached, time_s = 0, tokens, 0.0
        tpot_s = facts.tpot_slo_s
        prefill = Prefill(
            now,
            new_tokens,
            cached,
            time_s,
            NORMAL_STEPS * forecast.step_s if tpot_s is None else tpot_s,
            self._lengths_of(facts.model).survival,
        )
        forecast.look()
        queue_s = forecast.queue_s
        forecast.version += 1
        forecast.prefills[attempt] = prefill
        forecast.prefill_s += time_s
        forecast.prefill_tokens += new_tokens
        forecast.context_tokens += tokens
        forecast.waiting_tokens += tokens
        replica.in_flight_prefills += 1
        replica.in_flight_prefill_tokens += new_tokens
        attempt.prefill_s = time_s
        attempt.expected_s = queue_s + time_s

    def progress(self, attempt: Attempt, tokens: int, now: float) -> None:
        """``tokens`` more were streamed; the first time: the prefill is done."""
        pace = self._paces[attempt.replica]
        forecast = pace.forecast
        stream = forecast.streams.get(attempt)
        if stream is None:
            prefill = forecast.prefills.get(attempt)
            if prefill is None or not attempt.request.facts.streamed:
                return
            self._seen_first(attempt, now)
            if attempt.leg is not _DECODE:
                pace.first_token(prefill, now)
            stream = self._begin(forecast, attempt, prefill, now)
            forecast.tight[attempt] = stream
        stream.tokens += tokens
        stream.seen_s = now
        stream.context_tokens += tokens
        forecast.context_tokens += tokens
        if pace.probe is attempt or pace.probe is None:
            pace.progress(attempt, stream, now)
        if attempt in forecast.tight:
            debt_s = stream.debt_s(now, stream.tokens)
            if debt_s < -CLOSE_S and debt_s < -forecast.speed.prefill_time_s(COMFORTABLE_TOKENS):
                del forecast.tight[attempt]

    def prefilled(self, leg: Attempt, now: float) -> None:
        """The prompt of a split request was computed."""
        pace = self._paces[leg.replica]
        prefill = pace.forecast.prefills.get(leg)
        if prefill is not None:
            pace.first_token(prefill, now)

    def closed(self, attempt: Attempt, now: float, *, whole: bool) -> None:
        """An attempt ended; ``whole``: at the end of its answer."""
        pace = self._paces[attempt.replica]
        forecast = pace.forecast
        forecast.version += 1
        prefill = forecast.prefills.get(attempt)
        if prefill is not None:
            self._prefilled(forecast, attempt, prefill, now)
            forecast.context_tokens -= attempt.request.facts.prompt_tokens
            return
        stream = forecast.streams.pop(attempt, None)
        if stream is None:
            return
        forecast.tight.pop(attempt, None)
        forecast.context_tokens -= stream.context_tokens
        pace.gone(attempt)
        if whole and attempt.request.facts.streamed and stream.tokens:
            late = stream.tokens > 1 and stream.debt_s(now, stream.tokens) > 0
            forecast.late_share += LEARN_LATE * (late - forecast.late_share)
            self._lengths_of(attempt.request.facts.model).ended(stream.tokens)
            if attempt.predicted_e2e_s is not None:
                self.e2e.observe(attempt.predicted_e2e_s, now - attempt.started_s)

    def sampled(self, replica: Replica, now: float) -> None:
        """The gauges of a replica were read, or are not believed any more."""
        forecast = replica.forecast
        if forecast is None:
            return
        occupancy, kv_tokens = replica.kv_occupancy, replica.kv_tokens
        if occupancy is not None and kv_tokens is not None:
            held_tokens = forecast.context_tokens - forecast.waiting_tokens
            if held_tokens > LEARN_KV_FROM * kv_tokens:
                share = min(max(occupancy * kv_tokens / held_tokens, 0.02), 1.2)
                forecast.kv_share += LEARN_KV * (share - forecast.kv_share)
        if replica.running is not None and replica.waiting is not None:
            own = max(replica.in_flight - replica.unseen, 0)
            foreign = max(replica.running + replica.waiting - own, 0)
            waiting = min(foreign, replica.waiting)
            # an answer of ours that ended during the look is no stranger: two looks must agree
            forecast.foreign_waiting = min(waiting, forecast.foreign_seen)
            forecast.foreign_streams = (
                min(foreign, forecast.foreign_seen) - forecast.foreign_waiting
            )
            forecast.foreign_seen = foreign
            seats = self._seats.get(replica)
            if seats is not None and replica.transfer is None:  # else it may wait for its KV
                seats.sampled(forecast, replica, now)
        else:  # nobody knows of others any more
            forecast.foreign_waiting = forecast.foreign_streams = forecast.foreign_seen = 0

    def tick(self, now: float) -> None:
        """Time has passed: prefills that give no sign are taken for done."""
        for pace in self._paces.values():
            forecast = pace.forecast
            while forecast.prefills:
                attempt, prefill = next(iter(forecast.prefills.items()))
                began_s = max(prefill.sent_s, forecast.prefilled_s)
                tells = attempt.request.facts.streamed or attempt.leg is _PREFILL
                if tells or now - began_s < LATE_PREFILL * prefill.time_s:
                    break
                self._begin(forecast, attempt, prefill, now)
                pace.unseen_prefill(now)
        self._grow_curious(now)

    def _grow_curious(self, now: float) -> None:
        idle = [
            p.forecast for p in self._paces.values() if now - p.forecast.prefilled_s > CURIOUS_S
        ]
        if not idle or len(self._paces) < 2:
            return
        best_s = min(p.forecast.speed.prefill_time_s(1000) for p in self._paces.values())
        for forecast in idle:
            time_s = forecast.speed.prefill_time_s(1000)
            if not forecast.prefills and time_s > best_s:
                # No further than to the best: else all of an idle fleet would overtake each other.
                forecast.speed.prefill_factor *= max(1 - CURIOSITY, best_s / time_s)

    def predict_e2e_s(self, attempt: Attempt, ttft_s: float) -> float:
        """Time from sending to the end of the answer, as it is expected now."""
        forecast = attempt.replica.forecast
        tokens = self.expected_tokens(attempt.request.facts)
        return ttft_s + (tokens - 1) * (forecast.step_s if forecast is not None else 0.0)

    def _seen_first(self, attempt: Attempt, now: float) -> None:
        if attempt.predicted_ttft_s is not None:
            self.ttft.observe(attempt.predicted_ttft_s, now - attempt.started_s)

    def _begin(self, forecast: Forecast, attempt: Attempt, prefill: Prefill, now: float) -> Stream:
        """A prefill is done: from now on it is a stream."""
        forecast.version += 1
        self._prefilled(forecast, attempt, prefill, now)
        prompt_tokens = attempt.request.facts.prompt_tokens
        stream = Stream(now, now, 0, prompt_tokens, prefill.tpot_s, prefill.survival)
        forecast.streams[attempt] = stream
        return stream

    def _prefilled(
        self, forecast: Forecast, attempt: Attempt, prefill: Prefill, now: float
    ) -> None:
        del forecast.prefills[attempt]
        forecast.prefill_s = forecast.prefill_s - prefill.time_s if forecast.prefills else 0.0
        forecast.prefill_tokens -= prefill.new_tokens
        forecast.waiting_tokens -= attempt.request.facts.prompt_tokens
        forecast.prefilled_s = now
        replica = attempt.replica
        replica.in_flight_prefills -= 1
        replica.in_flight_prefill_tokens -= prefill.new_tokens

    def _lengths_of(self, model: str | None) -> Lengths:
        lengths = self._lengths.get(model)
        if lengths is None:
            if len(self._lengths) >= MAX_LENGTHS:
                model = None
            lengths = self._lengths.setdefault(model, Lengths())
        return lengths
