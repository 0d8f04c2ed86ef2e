"""Asks the policy, and survives what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import force_setattr

from policies.base import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import Policy
    from router.core.estimator import Estimator
    from router.core.prefix_index import PrefixIndex
    from router.core.replica import Replica
    from router.core.request import Request

MAX_REASONS = 64
"""Reasons counted apart; a plugin that makes up a new one for each request counts as ``other``."""


class Critic(Protocol):
    """Who is told of a policy's failures."""

    def policy_failed(self, error: Exception) -> None:
        """The policy raised, or chose what it was not offered; a fallback chose instead."""


class Chooser:
    """Asks the policy where a request should go, and counts its answers.

    Args:
        policy: Who chooses.
        rng: The policy's source of chance.
        critic: Told when the policy fails.
        estimator: What it believes of the replicas is brought to the present before each choice.
        prefix_index: Which replica has seen which prompts.
    """

    def __init__(
        self,
        policy: Policy,
        rng: Random,
        critic: Critic,
        estimator: Estimator,
        prefix_index: PrefixIndex,
    ) -> None:
        self.policy = policy
        self.rng = rng
        self.errors = 0
        """How often the policy failed."""
        self.reasons: dict[str, int] = {}
        """Answers by the reason that the policy gave."""
        self._critic = critic
        self._estimator = estimator
        self._prefix_index = prefix_index

    def ask(self, request: Request, candidates: Sequence[Replica], now: float) -> Choice:
        """What the policy wants, or a fallback's choice if it fails."""
        self.prepare(request, now)
        request.offered = len(candidates)
        try:
            choice = self.policy.choose(request.facts, candidates, self.rng)
            reason = _checked(choice, candidates)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it is reported
            self.errors += 1
            self._critic.policy_failed(error)
            choice = Choice(min(candidates, key=_in_flight), "fallback")
            reason = "fallback"
        self._count(reason)
        return choice

    def direct(self, request: Request, replica: Replica, reason: str, now: float) -> Choice:
        """Send the request to ``replica`` without asking; counted by ``reason`` all the same."""
        self.prepare(request, now)
        request.offered = 1
        self._count(reason)
        return Choice(replica, reason)

    def prepare(self, request: Request, now: float) -> None:
        """Bring what is believed, and what the request says of itself, to the present."""
        facts = request.facts
        self._estimator.clock.now_s = now
        force_setattr(facts, "waited_s", now - request.arrived_s)
        force_setattr(facts, "expected_output_tokens", self._estimator.expected_tokens(facts))
        if facts.prefix:
            cached = self._prefix_index.match(facts.prefix, facts.prefix_block_tokens)
            force_setattr(facts, "cached", cached)

    def _count(self, reason: str) -> None:
        counts = self.reasons
        if reason not in counts and len(counts) >= MAX_REASONS:
            reason = "other"
        counts[reason] = counts.get(reason, 0) + 1


def _checked(choice: Choice, candidates: Sequence[Replica]) -> str:
    candidates.index(choice.replica)  # a stranger raises ValueError
    if choice.prefill is not None:
        candidates.index(choice.prefill)
        if choice.replica.transfer is None:
            msg = f"the policy splits a request, but no KV can be brought to {choice.replica.name}"
            raise ValueError(msg)
    reason: object = choice.reason
    if not isinstance(reason, str):
        msg = f"the policy gave {reason!r} as its reason; allowed: a string"
        raise TypeError(msg)
    ttft_s: object = choice.ttft_s
    if ttft_s is not None and not isinstance(ttft_s, (float, int)):
        msg = f"the policy expects a TTFT of {ttft_s!r}; allowed: seconds, or None"
        raise TypeError(msg)
    return reason


def _in_flight(replica: Replica) -> int:
    return replica.in_flight
