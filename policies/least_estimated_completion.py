"""Least estimated completion: the replica that will be done soonest and harms others least."""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING, cast

from policies.base import Choice, Estimate
from policies.least_requests import LeastRequests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts
    from policies.forecast import Forecast

NORMAL_TTFT_S = 2.0
"""Without an objective a first token should not take longer than this and four times its own
prefill."""

SLACK_S = 0.3
"""A request whose time to its objective has run down to this waits no longer."""

LATE_FROM, LATE_TO = 0.8, 1.2
"""Shares of its objective between which a request's estimate goes from safe to missed."""

FULL_FROM = 0.92
"""Share of the KV cache from which on its peak is expected to preempt."""

FULL_COST = 12.0
"""Objectives missed by each further share of 1: whoever is preempted starts again."""

SLOW_FROM, SLOW_TO = 0.85, 1.05
"""Shares of a stream's objective between which the steps to come go from safe to too slow."""

LONG_S = 0.2
"""A prefill shorter than this may do proportionally less harm: many of them will follow."""

KEPT = 8
"""Estimates kept to be explained."""


class LeastEstimatedCompletion:
    """Weighs when each replica would be done with this request, and what that costs the others.

    The cost of a replica is the number of objectives that the placement is expected to break:
    the request's own (its queue and its uncached prefill against its TTFT), those of the streams
    already there (what its prefill takes of their TPOT budgets, given how long they still live),
    and those lost to a KV cache or to steps that grow past what they bear at their peak. Seconds
    until the first token decide between replicas where nothing is at stake.

    A request waits in the router while its best replica would only queue it, or while its prefill
    would break objectives there and its own still leaves time for a better moment.

    Args:
        harm: Weight of the objectives of others; 0 counts only the request's own.
        wait: Whether requests may wait in the router.
        most_harm: A request with time left waits rather than do more harm than this.
        most_queue_tokens: It waits while more prefill than this is ahead of it everywhere.
        time_weight: Cost of a second until the first token.
        pressure: How much a busy fleet counts budgets taken, beside objectives broken.
        prefix: Whether cached prefixes count.
        peak: Whether KV and steps are foreseen at their peak.
    """

    def __init__(
        self,
        *,
        harm: float = 2.5,
        wait: bool = True,
        most_harm: float = 0.3,
        most_queue_tokens: int = 8192,
        time_weight: float = 0.3,
        pressure: float = 1.0,
        prefix: bool = True,
        peak: bool = True,
    ) -> None:
        self.harm = harm
        self.wait = wait
        self.most_harm = most_harm
        self.most_queue_tokens = most_queue_tokens
        self.time_weight = time_weight
        self.pressure = pressure
        self.prefix = prefix
        self.peak = peak
        self._without_forecast = LeastRequests()

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica of least cost; hold the request where another moment is better."""
        busy = room = 0
        for replica in replicas:
            forecast = replica.forecast
            if forecast is None:
                return self._without_forecast.choose(request, replicas, rng)
            forecast.look()
            if forecast.prefills:
                busy += 1
            if forecast.queue_tokens <= self.most_queue_tokens:
                room += 1
        if self.wait and not room and request.waited_s > 0:
            return Choice(replicas[0], "no_room", hold=True)
        pressure = self.pressure * busy / len(replicas)
        costs = [self._cost(request, replica, pressure) for replica in replicas]
        return self._decide(request, replicas, costs)

    def _cost(self, request: RequestFacts, replica: ReplicaView, pressure: float) -> Estimate:
        forecast = cast("Forecast", replica.forecast)  # `choose` has seen to that
        tokens = request.prompt_tokens
        cached = request.cached.get(replica.name, 0) if self.prefix and request.cached else 0
        cached = min(cached, tokens - 1)
        new_tokens = max(tokens - cached, 1)
        prefill_s = forecast.speed.prefill_time_s(new_tokens, cached)
        queue_s = forecast.queue_s
        ttft_s = queue_s + prefill_s
        harm = forecast.harm(prefill_s, new_tokens, pressure) if self.harm else 0.0
        if self.peak and replica.kv_tokens is not None:
            harm += _peak_harm(forecast, replica.kv_tokens, request, new_tokens)
        own = (request.waited_s + ttft_s) / _ttft_objective_s(request, prefill_s)
        own = min(max((own - LATE_FROM) / (LATE_TO - LATE_FROM), 0.0), 1.0)
        cost = self.time_weight * ttft_s + own + self.harm * harm
        return Estimate(replica.name, queue_s, prefill_s, 0.0, 0.0, cached, harm, cost)

    def _decide(
        self, request: RequestFacts, replicas: Sequence[ReplicaView], costs: list[Estimate]
    ) -> Choice:
        best = min(costs, key=_cost_of)
        replica = replicas[costs.index(best)]
        ttft_s = best.queue_s + best.prefill_s
        why = self._better_later(request, replica, best) if self.wait else None
        if why is not None:
            return Choice(replica, why, hold=True, ttft_s=ttft_s)
        kept = tuple(nsmallest(KEPT, costs, key=_cost_of))
        return Choice(replica, "least_cost", ttft_s=ttft_s, estimates=kept)

    def _better_later(
        self, request: RequestFacts, replica: ReplicaView, best: Estimate
    ) -> str | None:
        """Why the request should wait; None when it should not."""
        forecast = replica.forecast
        if forecast is None or not (forecast.prefills or forecast.streams):
            return None  # nothing there is worth waiting for
        if forecast.queue_tokens > self.most_queue_tokens:
            return "queue"
        kv_tokens = replica.kv_tokens
        best_new_tokens = request.prompt_tokens - best.cached_tokens
        if kv_tokens and forecast.kv_tokens() + best_new_tokens > kv_tokens:
            return "kv_full"
        if best.harm <= self.most_harm * min(best.prefill_s / LONG_S, 1.0):
            return None
        objective_s = _ttft_objective_s(request, best.prefill_s)
        left_s = objective_s - request.waited_s - best.queue_s - best.prefill_s
        return "harm" if abs(left_s) > SLACK_S else None


def _cost_of(estimate: Estimate) -> float:
    return estimate.cost


def _ttft_objective_s(request: RequestFacts, prefill_s: float) -> float:
    objective_s = request.ttft_slo_s
    return NORMAL_TTFT_S + 4 * prefill_s if objective_s is None else objective_s


def _peak_harm(forecast: Forecast, kv_tokens: int, request: RequestFacts, new_tokens: int) -> float:
    """Objectives lost to a KV cache that preempts, or steps that are too slow, at the peak."""
    before = forecast.peak_tokens()
    share = forecast.kv_share
    full_before = share * before / kv_tokens
    full_after = full_before + new_tokens / kv_tokens
    harm = FULL_COST * max(full_after - max(full_before, FULL_FROM), 0.0)
    objective_s = request.tpot_slo_s
    if objective_s is not None:
        streams = len(forecast.streams) + len(forecast.prefills)
        speed = forecast.speed
        slow_before = _too_slow(speed.step_time_s(streams, before) / objective_s)
        slow_after = _too_slow(
            speed.step_time_s(streams + 1, before + request.prompt_tokens) / objective_s
        )
        harm += slow_after + streams * (slow_after - slow_before)
    return harm


def _too_slow(share: float) -> float:
    return min(max((share - SLOW_FROM) / (SLOW_TO - SLOW_FROM), 0.0), 1.0)
