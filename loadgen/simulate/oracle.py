"""The truth, for a policy that is told it: what could be gained by predicting better.

The rules are those of ``least_estimated_completion``; only what they are told is replaced: the
engines' step times instead of learned ones, the length of each answer instead of a survival curve,
and what is in the engines' queues and caches at this moment instead of what was polled or charged.
That is no upper bound: other rules may do better with the same truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from loadgen.engine.cost import StepCost
from loadgen.engine.sequence import State
from policies.forecast import Forecast
from policies.speed import Speed
from policies.survival import Survival
from router.core.estimator import Estimator
from router.core.pace import Pace
from router.core.prefix_index import PrefixIndex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadgen.engine.engine import Engine
    from loadgen.simulate.station import Station
    from loadgen.simulate.workload import Workload
    from policies.base import RequestFacts
    from policies.forecast import Prefill, Stream
    from router.core.replica import Replica
    from router.core.request import Attempt


class Certain(Survival):
    """The law of an answer whose length is known."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: int) -> None:  # what a curve needs is not computed
        self._tokens = tokens
        self.mean_tokens = float(tokens)

    def alive(self, tokens: float) -> float:
        """Whether it is longer than ``tokens``, 1 or 0."""
        return 1.0 if tokens < self._tokens else 0.0

    def ends_within(self, tokens: float, more: float) -> float:
        """Whether it has no more than ``tokens + more``, 1 or 0."""
        return 1.0 if tokens + more >= self._tokens else 0.0

    def remaining_tokens(self, tokens: float) -> float:
        """What it has beyond ``tokens``; at least one, since it has not ended."""
        return max(self._tokens - tokens, 1.0)

    def outlook(self, tokens: float) -> tuple[float, float]:
        """:meth:`alive` and :meth:`remaining_tokens` at once."""
        return self.alive(tokens), self.remaining_tokens(tokens)


@dataclass(slots=True)
class TrueSpeed(Speed):
    """The step times of an engine, as they are."""

    cost: StepCost | None = None
    station: Station | None = None

    def prefill_time_s(self, new_tokens: float, cached_tokens: float = 0.0) -> float:
        """Seconds that a prefill takes, among the streams that are there now."""
        cost, engine = self._truth()
        if engine is None:
            return Speed.prefill_time_s(self, new_tokens, cached_tokens)
        steps, rest = divmod(int(new_tokens), engine.max_batched_tokens)
        in_use_tokens = engine.kv_occupancy * engine.kv_tokens
        seconds = steps * cost.base_s(engine.max_batched_tokens, 1)
        if rest:
            seconds += cost.base_s(rest, 1)
        seconds += (steps + (rest > 0)) * cost.context_s * in_use_tokens
        seconds += cost.pair_s * new_tokens * (cached_tokens + new_tokens / 2)
        return engine.slowdown * seconds

    def step_time_s(self, streams: float, context_tokens: float) -> float:
        """Seconds from one output token to the next, with no prefill between."""
        cost, engine = self._truth()
        if engine is None:
            return Speed.step_time_s(self, streams, context_tokens)
        number = int(streams)
        return engine.slowdown * (cost.base_s(number, number) + cost.context_s * context_tokens)

    def _truth(self) -> tuple[StepCost, Engine | None]:
        station = cast("Station", self.station)
        return cast("StepCost", self.cost), station.engine


@dataclass(slots=True)
class TrueForecast(Forecast):
    """What is ahead in an engine, as it is."""

    station: Station | None = None
    kv_tokens_then: float = 0.0
    """What :meth:`kv_tokens` answers."""

    def look(self) -> float:
        """Bring the forecast to the time of its clock; returns ``queue_s``."""
        Forecast.look(self)  # super() does not work in a dataclass with slots
        station = cast("Station", self.station)
        engine = station.catch_up()
        if engine is None:
            return self.queue_s
        queue_s, queue_tokens = self._under_way(engine)
        later_tokens = 0
        for tokens, before in self._later(engine, station):
            later_tokens += tokens
            queue_s += self.speed.prefill_time_s(tokens, before)
        self.queue_s, self.queue_tokens = queue_s, queue_tokens + later_tokens
        in_use_tokens = engine.kv_occupancy * engine.kv_tokens
        self.kv_tokens_then = in_use_tokens + later_tokens
        held_tokens = self.context_tokens - self.waiting_tokens
        self.kv_share = min(in_use_tokens / held_tokens, 1.2) if held_tokens else 1.0
        return self.queue_s

    def kv_tokens(self) -> float:
        """Tokens of KV in use once all prefills sent there are done."""
        return self.kv_tokens_then

    def _under_way(self, engine: Engine) -> tuple[float, float]:
        """Seconds and prefill tokens that are left of the step under way."""
        chunk = sum(s.chunk_tokens for s in engine.running if s.state is State.PREFILL)
        end_s = engine.next_step_s()
        if end_s is None:
            return 0.0, 0.0
        left_s = max(end_s - self.clock.now_s, 0.0)
        if not chunk:
            return left_s, 0.0
        return left_s, chunk * min(left_s / self.speed.prefill_time_s(chunk), 1.0)

    def _later(self, engine: Engine, station: Station) -> list[tuple[int, int]]:
        """What the steps after this one have to prefill: new tokens, and tokens before them."""
        found = []
        for sequence in engine.running:
            if sequence.state is State.PREFILL:
                before = sequence.computed_tokens + sequence.chunk_tokens
                if before < sequence.goal_tokens:
                    found.append((sequence.goal_tokens - before, before))
        for sequence in engine.waiting:
            cached = min(engine.cached_tokens(sequence.keys), sequence.goal_tokens - 1)
            found.append((sequence.goal_tokens - cached, cached))
        found += [
            (prefill.new_tokens, prefill.cached_tokens)
            for attempt, prefill in self.prefills.items()
            if not station.knows(attempt)
        ]
        return found


class _Deaf(Pace):
    """Learns nothing, for there is nothing to learn."""

    __slots__ = ()

    def first_token(self, prefill: Prefill, now: float) -> None:
        """A prefill ended."""

    def unseen_prefill(self, now: float) -> None:
        """A prefill is taken for done."""

    def progress(self, key: object, stream: Stream, now: float) -> None:
        """A stream came further."""

    def gone(self, key: object) -> None:
        """A stream ended."""


class Oracle(Estimator):
    """An estimator that knows.

    Args:
        stations: The replicas themselves.
        workload: The requests, with the lengths of their answers.
    """

    def __init__(self, stations: Mapping[Replica, Station], workload: Workload) -> None:
        super().__init__()
        self._stations = stations
        self._lengths_by_facts = {id(p.facts): p.output_tokens for p in workload.requests}
        self._workload = workload  # it keeps the facts, and so their ids, alive

    def joined(self, replica: Replica) -> None:
        """A replica came."""
        if replica.forecast is None:
            station = self._stations[replica]
            forecast = TrueForecast(self.clock, true_speed(station), station=station)
            replica.forecast = forecast
            self._paces[replica] = _Deaf(forecast)

    def sent(self, attempt: Attempt, now: float) -> None:
        """A request goes to a replica; how long its answer will be is noted with it."""
        super().sent(attempt, now)
        forecast, facts = attempt.replica.forecast, attempt.request.facts
        cast("Forecast", forecast).prefills[attempt].survival = self.survival(facts)

    def survival(self, facts: RequestFacts) -> Survival:
        """The length of the answer to this request."""
        return Certain(self._lengths_by_facts[id(facts)])


class TruePrefixIndex(PrefixIndex):
    """Looks into the caches of the engines.

    Args:
        stations: The replicas themselves.
    """

    def __init__(self, stations: Mapping[Replica, Station]) -> None:
        super().__init__()
        self._stations = stations

    def match(self, keys: Sequence[int], block_tokens: int) -> dict[str, int]:
        """Prompt tokens that are cached, by replica."""
        found = {}
        for replica, station in self._stations.items():
            tokens = 0 if station.engine is None else station.engine.cached_tokens(keys)
            if tokens:
                found[replica.name] = min(tokens, len(keys) * block_tokens)
        return found


def true_speed(station: Station) -> TrueSpeed:
    """The speed of a replica."""
    budget = station.plan.max_batched_tokens or station.plan.profile.max_batched_tokens
    cost = StepCost(station.plan.profile)
    return TrueSpeed(steps_per_token=1 / budget, cost=cost, station=station)
