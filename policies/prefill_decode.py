"""Prefill and decode on two replicas, where that is expected to pay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from policies.base import Choice, Estimate, Role
from policies.least_estimated_completion import (
    KEPT,
    LATE_FROM,
    LATE_TO,
    LONG_S,
    NORMAL_TTFT_S,
    SLACK_S,
    LeastEstimatedCompletion,
    estimate_of,
    peak_harm,
)
from policies.pairing import Answer, Pair, Prompt, cheapest_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts
    from policies.forecast import Forecast
    from policies.least_estimated_completion import Cost
    from policies.transfer import Transfer

FIXED_TOKENS, FIXED_SHARE = 2048, 0.7
"""The fixed rule, for comparison: a prompt of which fewer tokens than this, and a lesser share,
have to be computed is not split. The thresholds are those of NVIDIA Dynamo's conditional
disaggregation."""

TYPICAL_TOKENS = 4096
"""Length of a prompt by which computing and moving its KV are compared."""

EVEN_WEIGHT = 0.1
"""Cost of steps that take all of a stream's objective: evens out decode replicas with room."""


class PrefillDecode(LeastEstimatedCompletion):
    """Weighs the best pair of a prefill and a decode replica against service by one alone.

    A pair costs what `least_estimated_completion` counts, with the transfer in the time to the
    first token: cached prefixes count on the prefill side, the KV cache and the steps at their peak
    on the decode side. Whoever serves a request alone stalls the streams beside it, and each stall
    has its price. No prefill is begun whose KV would find no place on any decode replica.

    In a fleet without roles, or without a way for KV to move, nothing is split. Where KV comes more
    slowly than it is computed roles are void, and whoever can serves whole requests as under
    `least_estimated_completion`.

    Args:
        split: Whether to split: as the estimate says (auto), by the thresholds of another router
            (fixed), whenever there is a pair (always), or only where nobody can serve a request
            alone (never).
        stall_weight: Cost of each time that a stream stands still for 0.1 s, whatever its
            objective: the more, the shorter the longest gaps, and the fewer requests are served.
        harm: Weight of the objectives of others; 0 counts only the request's own.
        wait: Whether requests may wait in the router.
        most_queue_tokens: They wait while more prefill than this is ahead of them everywhere.
    """

    def __init__(
        self,
        *,
        split: Literal["auto", "fixed", "always", "never"] = "auto",
        stall_weight: float = 0.02,
        harm: float = 2.5,
        wait: bool = True,
        most_queue_tokens: int = 8192,
    ) -> None:
        super().__init__(
            harm=harm,
            wait=wait,
            most_queue_tokens=most_queue_tokens,
            stall_weight=stall_weight,
        )
        self.split = split
        self._unsplit = LeastEstimatedCompletion(
            harm=harm, wait=wait, most_queue_tokens=most_queue_tokens
        )

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica, or the pair, of least cost; hold where another moment is better."""
        prefills, decodes, wholes = _sides(replicas)
        may_split = prefills and decodes and request.splits
        if not may_split or (wholes and self.split == "never"):
            return super().choose(request, wholes or _answerers(replicas), rng)
        if any(replica.forecast is None for replica in replicas):
            return self._without_forecast.choose(request, wholes or decodes, rng)
        if self.split != "always" and _roles_are_void(prefills, decodes):
            able = [replica for replica in replicas if replica.serves_whole]
            if able:
                return self._unsplit.choose(request, able, rng)
        if self.wait and request.waited_s > 0 and not self._has_room((*prefills, *wholes)):
            return Choice(decodes[0], "no_room", hold=True)
        pairs = self._pairs(request, prefills, decodes)
        if not wholes or self.split == "always":
            return self._by_pair(request, pairs, decodes, [])
        return self._pair_or_whole(request, pairs, decodes, wholes)

    def _pairs(
        self,
        request: RequestFacts,
        prefills: Sequence[ReplicaView],
        decodes: Sequence[ReplicaView],
    ) -> list[Pair]:
        prompts = [self._prompt(request, replica) for replica in prefills]
        answers = [self._answer(request, replica) for replica in decodes if _fits(request, replica)]

        def weigh(prompt: Prompt, answer: Answer) -> Pair:
            return self._pair(request, prompt, answer)

        return cheapest_pairs(prompts, answers, weigh, KEPT)

    def _pair_or_whole(
        self,
        request: RequestFacts,
        pairs: Sequence[Pair],
        decodes: Sequence[ReplicaView],
        wholes: Sequence[ReplicaView],
    ) -> Choice:
        open_costs, _ = self._own_costs(request, wholes)
        costs = self._costs(request, wholes, open_costs, self._busy(wholes))
        costs.sort()
        if pairs and self._is_better(request, pairs[0], costs[0], wholes[costs[0][1]]):
            others = [estimate_of(request, wholes[cost[1]], cost) for cost in costs]
            return self._by_pair(request, pairs, decodes, others)
        choice = self._decide(request, wholes, costs, open_costs)
        told = [*choice.estimates, *(_estimate_of_pair(request, pair) for pair in pairs)]
        told.sort(key=_cost_of)
        return choice if choice.hold else _with_estimates(choice, tuple(told[:KEPT]))

    # -- the halves of a pair -----------------------------------------------------------------

    def _prompt(self, request: RequestFacts, replica: ReplicaView) -> Prompt:
        forecast = _forecast(replica)
        queue_s = forecast.look()
        tokens = request.prompt_tokens
        cached = self._cached(request, replica)
        new_tokens = tokens - cached or 1
        prefill_s = forecast.speed.prefill_time_s(new_tokens, cached)
        cost, harm = self.time_weight * (queue_s + prefill_s), 0.0
        if forecast.streams:  # else nobody there lives through it
            harm = forecast.harm(prefill_s, new_tokens, self.pressure)
            cost += self.harm * harm
            stalls = len(forecast.streams) * forecast.stalls(prefill_s, new_tokens)
            cost += self.stall_weight * stalls
        return Prompt(replica, queue_s, prefill_s, cached, harm, cost)

    def _answer(self, request: RequestFacts, replica: ReplicaView) -> Answer:
        forecast, kv_tokens = _forecast(replica), replica.kv_tokens
        tokens = request.prompt_tokens
        to_come = tokens - self._cached(request, replica) or 1
        harm = 0.0
        if self.peak and kv_tokens is not None:
            harm = peak_harm(forecast, kv_tokens, request, to_come)
        step_s = _step_s(request, replica)
        cost = self.harm * harm + self._steps_cost(request, step_s)
        return Answer(replica, step_s, to_come, harm, cost)

    def _steps_cost(self, request: RequestFacts, step_s: float) -> float:
        """What the steps to come cost wherever the answer is made."""
        cost = self.time_weight * step_s
        if request.tpot_slo_s is not None:
            cost += EVEN_WEIGHT * step_s / request.tpot_slo_s
        return cost

    def _pair(self, request: RequestFacts, prompt: Prompt, answer: Answer) -> Pair:
        zones = prompt.replica.zone, answer.replica.zone
        same_zone = zones[0] == zones[1] or not all(zones)
        transfer = cast("Transfer", answer.replica.transfer)  # `_sides` has seen to that
        transfer_s = transfer.time_s(answer.kv_tokens, same_zone=same_zone)
        ttft_s = prompt.queue_s + prompt.prefill_s + transfer_s + answer.step_s
        cost = prompt.cost + answer.cost + self.time_weight * transfer_s
        spent = (request.waited_s + ttft_s) / _limit_s(request, prompt.prefill_s)
        if spent > LATE_FROM:
            cost += min((spent - LATE_FROM) / (LATE_TO - LATE_FROM), 1.0)
        return Pair(prompt, answer, transfer_s, cost)

    def _cached(self, request: RequestFacts, replica: ReplicaView) -> int:
        if not self.prefix or not request.cached:
            return 0
        return min(request.cached.get(replica.name, 0), max(request.prompt_tokens - 1, 0))

    def _busy(self, wholes: Sequence[ReplicaView]) -> float:
        """How near those that serve alone are to their limit: the share that is at a prefill."""
        busy = sum(_forecast(replica).prefill_tokens > 0 for replica in wholes)
        return self.pressure * busy / len(wholes)

    # -- the decision -------------------------------------------------------------------------

    def _is_better(
        self, request: RequestFacts, pair: Pair, whole: Cost, alone: ReplicaView
    ) -> bool:
        if self.split == "fixed":
            new_tokens = request.prompt_tokens - whole[4]
            return new_tokens >= FIXED_TOKENS or new_tokens >= FIXED_SHARE * request.prompt_tokens
        cost, _, _, prefill_s, cached, _ = whole
        forecast, new_tokens = _forecast(alone), request.prompt_tokens - cached or 1
        # One that comes while the prompt is computed there stands still as well.
        cost += self.stall_weight * forecast.stalls(prefill_s, new_tokens)
        cost += self._steps_cost(request, _step_s(request, alone))
        return pair.cost < cost

    def _by_pair(
        self,
        request: RequestFacts,
        pairs: Sequence[Pair],
        decodes: Sequence[ReplicaView],
        others: Sequence[Estimate],
    ) -> Choice:
        if not pairs:
            return Choice(decodes[0], "kv_full", hold=True)
        best = pairs[0]
        why = self._pair_better_later(request, best) if self.wait else None
        if why is not None:
            return Choice(best.answer.replica, why, hold=True, ttft_s=best.ttft_s)
        told = [*(_estimate_of_pair(request, pair) for pair in pairs), *others]
        told.sort(key=_cost_of)
        return Choice(
            best.answer.replica,
            "split",
            ttft_s=best.ttft_s,
            prefill=best.prompt.replica,
            transfer_s=best.transfer_s,
            estimates=tuple(told[:KEPT]),
        )

    def _pair_better_later(self, request: RequestFacts, pair: Pair) -> str | None:
        """Why the pair should not begin now; None when it should."""
        prompt = pair.prompt
        forecast = _forecast(prompt.replica)
        if forecast.queue_tokens > self.most_queue_tokens:
            return "queue"
        if pair.harm <= self.most_harm * min(prompt.prefill_s / LONG_S, 1.0):
            return None
        left_s = _limit_s(request, prompt.prefill_s) - request.waited_s - pair.ttft_s
        return "harm" if abs(left_s) > SLACK_S else None


def _sides(
    replicas: Sequence[ReplicaView],
) -> tuple[list[ReplicaView], list[ReplicaView], list[ReplicaView]]:
    """Who may compute prompts for others, who may answer for others, and who may do both at once.

    Prefill replicas serve whole requests only where nobody else can.
    """
    prefills, decodes, wholes = [], [], []
    for replica in replicas:
        role = replica.role
        if role is not Role.DECODE:
            prefills.append(replica)
        if role is not Role.PREFILL:
            if replica.transfer is not None:
                decodes.append(replica)
            if replica.serves_whole:
                wholes.append(replica)
    if len(decodes) == 1 and prefills == decodes:
        decodes = []  # there is no pair of one
    if not decodes and not wholes:
        wholes = [replica for replica in replicas if replica.serves_whole]
    return prefills, decodes, wholes


def _roles_are_void(prefills: Sequence[ReplicaView], decodes: Sequence[ReplicaView]) -> bool:
    """Whether KV comes more slowly than it is computed.

    Then a prefill replica does more for the others by whole requests of its own.
    """
    transfers = (cast("Transfer", replica.transfer).token_s for replica in decodes)
    computes = (_forecast(r).speed.prefill_time_s(TYPICAL_TOKENS) for r in prefills)
    return min(transfers) * TYPICAL_TOKENS > min(computes)


def _answerers(replicas: Sequence[ReplicaView]) -> Sequence[ReplicaView]:
    """Those that are there to answer, if there are any."""
    return [replica for replica in replicas if replica.role is not Role.PREFILL] or replicas


def _fits(request: RequestFacts, replica: ReplicaView) -> bool:
    """Whether the KV of the prompt has a place there as things are."""
    kv_tokens = replica.kv_tokens
    if kv_tokens is None:
        return True
    forecast = _forecast(replica)
    if not forecast.streams and not forecast.prefills:
        return True  # it will have no more room than now
    cached = min(request.cached.get(replica.name, 0), request.prompt_tokens)
    return forecast.kv_tokens() + request.prompt_tokens - cached <= kv_tokens


def _step_s(request: RequestFacts, replica: ReplicaView) -> float:
    """Between two tokens there, with this answer among the others."""
    forecast = _forecast(replica)
    streams = len(forecast.streams) + len(forecast.prefills) + forecast.foreign_streams
    context_tokens = forecast.context_tokens + request.prompt_tokens
    return forecast.speed.step_time_s(streams + 1, context_tokens)


def _limit_s(request: RequestFacts, prefill_s: float) -> float:
    objective_s = request.ttft_slo_s
    return NORMAL_TTFT_S + 4 * prefill_s if objective_s is None else objective_s


def _estimate_of_pair(request: RequestFacts, pair: Pair) -> Estimate:
    prompt, answer = pair.prompt, pair.answer
    more_tokens = request.expected_output_tokens - 1
    return Estimate(
        answer.replica.name,
        prompt.queue_s,
        prompt.prefill_s,
        more_tokens * answer.step_s if more_tokens > 0 else 0.0,
        0.0,
        prompt.cached_tokens,
        pair.harm,
        pair.cost,
        prompt.replica.name,
        pair.transfer_s,
    )


def _with_estimates(choice: Choice, estimates: tuple[Estimate, ...]) -> Choice:
    return Choice(choice.replica, choice.reason, ttft_s=choice.ttft_s, estimates=estimates)


def _cost_of(estimate: Estimate) -> float:
    return estimate.cost


def _forecast(replica: ReplicaView) -> Forecast:
    return cast("Forecast", replica.forecast)  # `choose` has seen to that
