"""Least estimated completion: the replica that will be done soonest and harms others least."""

from __future__ import annotations

from heapq import heapify, heappop
from math import inf
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

ADAPTER_LOAD_S = 0.5
"""What a replica that has not loaded the adapter asked for takes to do so. S-LoRA and vLLM read
some 100 MB from the host, where it was not evicted; from a disk or a hub it takes longer."""

KEPT = 8
"""Estimates kept to be explained."""

Cost = tuple[float, int, float, float, int, float]
"""Cost, place of the replica, seconds of queue and of prefill, cached tokens, harm."""


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
        stall_weight: Cost of each time that a stream stands still for 0.1 s, whatever its
            objective; it gathers long prefills on few replicas.
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
        stall_weight: float = 0.0,
    ) -> None:
        self.harm = harm
        self.wait = wait
        self.most_harm = most_harm
        self.most_queue_tokens = most_queue_tokens
        self.time_weight = time_weight
        self.pressure = pressure
        self.prefix = prefix
        self.peak = peak
        self.stall_weight = stall_weight
        self._without_forecast = LeastRequests()

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica of least cost; hold the request where another moment is better."""
        if any(replica.forecast is None for replica in replicas):
            return self._without_forecast.choose(request, replicas, rng)
        if self.wait and request.waited_s > 0 and not self._has_room(replicas):
            return Choice(replicas[0], "no_room", hold=True)
        open_costs, busy = self._own_costs(request, replicas)
        costs = self._costs(request, replicas, open_costs, self.pressure * busy / len(replicas))
        return self._decide(request, replicas, costs, open_costs)

    def _has_room(self, replicas: Sequence[ReplicaView]) -> bool:
        """Whether any replica would do more than queue a request."""
        most = self.most_queue_tokens
        for replica in replicas:
            forecast = cast("Forecast", replica.forecast)  # `choose` has seen to that
            forecast.look()
            if forecast.queue_tokens <= most and not forecast.full:
                return True
        return False

    def _own_costs(
        self, request: RequestFacts, replicas: Sequence[ReplicaView]
    ) -> tuple[list[Cost], int]:
        """What each replica costs the request itself, which is the least that it costs in all.

        Returns:
            The costs, and the number of replicas that are at a prefill.
        """
        tokens, waited_s, objective_s = request.prompt_tokens, request.waited_s, request.ttft_slo_s
        found = request.cached if self.prefix else {}
        most_cached = max(tokens - 1, 0)
        time_weight = self.time_weight
        loading = _without_adapter(request, replicas)
        costs: list[Cost] = []
        busy = 0
        for number, replica in enumerate(replicas):
            forecast = cast("Forecast", replica.forecast)
            queue_s = forecast.look()
            if forecast.seats is not None:
                queue_s += forecast.seat_wait_s()
            if forecast.prefills:
                busy += 1
            if loading and number in loading:
                queue_s += ADAPTER_LOAD_S
            cached = min(found.get(replica.name, 0), most_cached) if found else 0
            prefill_s = forecast.speed.prefill_time_s(tokens - cached or 1, cached)
            ttft_s = queue_s + prefill_s
            limit_s = NORMAL_TTFT_S + 4 * prefill_s if objective_s is None else objective_s
            cost, spent = time_weight * ttft_s, (waited_s + ttft_s) / limit_s
            if spent > LATE_FROM:
                cost += min((spent - LATE_FROM) / (LATE_TO - LATE_FROM), 1.0)
            costs.append((cost, number, queue_s, prefill_s, cached, 0.0))
        return costs, busy

    def _costs(
        self,
        request: RequestFacts,
        replicas: Sequence[ReplicaView],
        open_costs: list[Cost],
        pressure: float,
    ) -> list[Cost]:
        """Complete the costs of those that may be the best.

        To weigh harm takes far longer than the rest, and harm is never below 0. So it is weighed
        where the rest costs least, on to where the rest alone costs more than the best in all.

        Args:
            request: The request.
            replicas: The candidates.
            open_costs: Costs without harm; those that are completed are taken out, and the others
                become a heap.
            pressure: How near the fleet is to its limit.
        """
        heapify(open_costs)
        costs: list[Cost] = []
        least = inf
        while open_costs and open_costs[0][0] < least:
            next_ = heappop(open_costs)
            cost = self._complete(request, replicas[next_[1]], next_, pressure, least)
            costs.append(cost)
            least = min(cost[0], least)
        return costs

    def _complete(
        self, request: RequestFacts, replica: ReplicaView, own: Cost, pressure: float, least: float
    ) -> Cost:
        """A cost with harm in it, as far as it is needed to know that it is not below ``least``."""
        cost, number, queue_s, prefill_s, cached, harm = own
        forecast = cast("Forecast", replica.forecast)
        new_tokens = request.prompt_tokens - cached or 1
        if self.peak and replica.kv_tokens is not None:
            harm = peak_harm(forecast, replica.kv_tokens, request, new_tokens)
        weight = self.harm
        if weight:
            enough = (least - cost) / weight - harm
            if enough > 0:
                harm += forecast.harm(prefill_s, new_tokens, pressure, enough)
            cost += weight * harm
        if self.stall_weight and forecast.streams:
            stalls = len(forecast.streams) * forecast.stalls(prefill_s, new_tokens)
            cost += self.stall_weight * stalls
        return cost, number, queue_s, prefill_s, cached, harm

    def _decide(
        self,
        request: RequestFacts,
        replicas: Sequence[ReplicaView],
        costs: list[Cost],
        open_costs: list[Cost],
    ) -> Choice:
        costs.sort()
        best = costs[0]
        _, number, queue_s, prefill_s, _, _ = best
        replica, ttft_s = replicas[number], queue_s + prefill_s
        why = self._better_later(request, replica, best) if self.wait else None
        if why is not None:
            return Choice(replica, why, hold=True, ttft_s=ttft_s)
        while open_costs and len(costs) < KEPT:
            costs.append(heappop(open_costs))
        estimates = [estimate_of(request, replicas[cost[1]], cost) for cost in sorted(costs)[:KEPT]]
        return Choice(replica, "least_cost", ttft_s=ttft_s, estimates=tuple(estimates))

    def _better_later(self, request: RequestFacts, replica: ReplicaView, best: Cost) -> str | None:
        """Why the request should wait; None when it should not."""
        forecast = replica.forecast
        if forecast is None or not (forecast.prefills or forecast.streams):
            return None  # nothing there is worth waiting for
        if forecast.queue_tokens > self.most_queue_tokens:
            return "queue"
        if forecast.full:
            return "seats"
        _, _, queue_s, prefill_s, cached, harm = best
        kv_tokens = replica.kv_tokens
        if kv_tokens and forecast.kv_tokens() + request.prompt_tokens - cached > kv_tokens:
            return "kv_full"
        if harm <= self.most_harm * min(prefill_s / LONG_S, 1.0):
            return None
        objective_s = request.ttft_slo_s
        limit_s = NORMAL_TTFT_S + 4 * prefill_s if objective_s is None else objective_s
        left_s = limit_s - request.waited_s - queue_s - prefill_s
        return "harm" if abs(left_s) > SLACK_S else None


def _without_adapter(request: RequestFacts, replicas: Sequence[ReplicaView]) -> frozenset[int]:
    """The places of replicas that would have to load the adapter asked for.

    A model counts as an adapter when some replica has loaded it as one; a replica that does not
    tell what it has loaded is taken to need no time.
    """
    model = request.model
    if not any(replica.adapters and model in replica.adapters for replica in replicas):
        return frozenset()
    return frozenset(
        number
        for number, replica in enumerate(replicas)
        if replica.adapters is not None and model not in replica.adapters
    )


def estimate_of(request: RequestFacts, replica: ReplicaView, parts: Cost) -> Estimate:
    """A cost as it is kept to be explained."""
    cost, _, queue_s, prefill_s, cached, harm = parts
    forecast = cast("Forecast", replica.forecast)
    more_tokens = request.expected_output_tokens - 1
    decode_s = more_tokens * forecast.step_s if more_tokens > 0 else 0.0
    kv_tokens = replica.kv_tokens
    kv_wait_s = 0.0
    if kv_tokens is not None:
        kv_wait_s = forecast.kv_wait_s(request.prompt_tokens - cached, kv_tokens)
    return Estimate(replica.name, queue_s, prefill_s, decode_s, kv_wait_s, cached, harm, cost)


def peak_harm(forecast: Forecast, kv_tokens: int, request: RequestFacts, new_tokens: int) -> float:
    """Objectives lost to a KV cache that preempts, or steps that are too slow, at the peak."""
    streams = len(forecast.streams) + len(forecast.prefills)
    share, speed, objective_s = forecast.kv_share, forecast.speed, request.tpot_slo_s
    tokens = request.prompt_tokens
    most = forecast.most_peak_tokens()
    if share * most + new_tokens <= FULL_FROM * kv_tokens and (
        objective_s is None
        or speed.step_time_s(streams + 1, most + tokens) <= SLOW_FROM * objective_s
    ):
        return 0.0
    before = forecast.peak_tokens()
    full_before = share * before / kv_tokens
    full_after = full_before + new_tokens / kv_tokens
    harm = FULL_COST * max(full_after - max(full_before, FULL_FROM), 0.0)
    if objective_s is not None:
        slow_before = _too_slow(speed.step_time_s(streams, before) / objective_s)
        slow_after = _too_slow(speed.step_time_s(streams + 1, before + tokens) / objective_s)
        harm += slow_after + streams * (slow_after - slow_before)
    return harm


def _too_slow(share: float) -> float:
    return min(max((share - SLOW_FROM) / (SLOW_TO - SLOW_FROM), 0.0), 1.0)
