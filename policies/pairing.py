"""The cheapest pair of a prefill and a decode replica, without a look at every pair."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from policies.base import ReplicaView


@dataclass(slots=True, frozen=True)
class Prompt:
    """A prefill replica, and what the prompt is expected to cost there."""

    replica: ReplicaView
    queue_s: float
    """Until its prefill could begin."""
    prefill_s: float
    cached_tokens: int
    harm: float
    cost: float
    """The least that a pair with it costs, wherever the answer comes from."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A decode replica, and what the answer is expected to cost there."""

    replica: ReplicaView
    step_s: float
    """Between two tokens, with this stream among the others."""
    kv_tokens: int
    """Tokens whose KV would have to come."""
    harm: float
    cost: float
    """What a pair with it costs more, at least, than its prompt alone."""


@dataclass(slots=True, frozen=True)
class Pair:
    """The two together."""

    prompt: Prompt
    answer: Answer
    transfer_s: float
    cost: float

    @property
    def ttft_s(self) -> float:
        """Until the first token."""
        prompt, answer = self.prompt, self.answer
        return prompt.queue_s + prompt.prefill_s + self.transfer_s + answer.step_s

    @property
    def harm(self) -> float:
        """Objectives expected to be missed because of it."""
        return self.prompt.harm + self.answer.harm


def cheapest_pairs(
    prompts: Iterable[Prompt],
    answers: Iterable[Answer],
    weigh: Callable[[Prompt, Answer], Pair],
    most: int,
) -> list[Pair]:
    """The pairs that were weighed until none could be cheaper than the best, the best first.

    A pair never costs less than its two halves; so both are looked at from the cheapest on, and
    from where the halves alone cost more than the best pair nothing is weighed any more. Where one
    replica stands out on either side that takes one look at each replica, and one pair.

    Args:
        prompts: The prefill sides.
        answers: The decode sides.
        weigh: What two halves cost together, at least the sum of theirs.
        most: How many pairs to answer with.
    """
    by_cost = sorted(answers, key=_answer_cost)
    pairs: list[Pair] = []
    if not by_cost:
        return pairs
    least, lowest = inf, by_cost[0].cost
    for prompt in sorted(prompts, key=_prompt_cost):
        if prompt.cost + lowest >= least:
            break
        for answer in by_cost:
            if prompt.cost + answer.cost >= least:
                break
            if answer.replica is prompt.replica:
                continue
            pair = weigh(prompt, answer)
            pairs.append(pair)
            least = min(least, pair.cost)
    pairs.sort(key=_pair_cost)
    return pairs[:most]


def _prompt_cost(prompt: Prompt) -> float:
    return prompt.cost


def _answer_cost(answer: Answer) -> float:
    return answer.cost


def _pair_cost(pair: Pair) -> float:
    return pair.cost
