"""The state machine that decides what happens to each request.

One object, driven by the asyncio shell and by the simulator alike. Each method is an event; it
returns the actions that its driver has to perform. All times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from router.core.actions import Abort, Actions, Cancel, Refuse, Send
from router.core.request import Attempt, Failure, Request, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from policies.base import Policy
    from router.core.fleet import FleetState
    from router.core.replica import Replica
    from router.core.sample import Sample

RETRY_AFTER_S = 1
"""What clients are told when no replica is ready; the poller looks four times a second."""

MAX_REASONS = 64
"""Reasons counted apart; a plugin that makes up a new one for each request counts as ``other``."""


class Observer(Protocol):
    """Who wants to know how requests end; called once a request."""

    def request_ended(self, request: Request, replica: Replica | None, now: float) -> None:
        """``request`` reached one of its ends; ``replica`` had its last attempt."""

    def policy_failed(self, error: Exception) -> None:
        """The policy raised, or chose what it was not offered; a fallback chose instead."""


@dataclass(slots=True)
class Limits:
    """Bounds of the dispatcher."""

    max_attempts: int = 3
    """Tries of one request, on replicas that all differ."""


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    arrived: int = 0
    attempts: int = 0
    ended: dict[State, int] = field(default_factory=dict)
    failed: dict[Failure, int] = field(default_factory=dict)
    policy_errors: int = 0
    choices: dict[str, int] = field(default_factory=dict)
    """Decisions by the reason that the policy gave."""


class Dispatcher:
    """Routes requests over a fleet under a policy.

    Args:
        fleet: The fleet; the dispatcher keeps its bookkeeping of attempts.
        policy: Who chooses.
        rng: The policy's source of chance.
        observer: Told of each end.
        limits: Bounds.
    """

    def __init__(
        self,
        fleet: FleetState,
        policy: Policy,
        rng: Random,
        observer: Observer,
        limits: Limits | None = None,
    ) -> None:
        self.fleet = fleet
        self.policy = policy
        self.rng = rng
        self.observer = observer
        self.limits = limits or Limits()
        self.counters = Counters()
        self.open: set[Request] = set()
        """Requests that have not ended."""

    # -- events of requests -------------------------------------------------------------------

    def request_arrived(self, request: Request, now: float) -> Actions:
        """A request is complete and wants a replica."""
        self.counters.arrived += 1
        self.open.add(request)
        candidates = self.fleet.candidates(request.facts.model)
        if not candidates:
            return self._refuse_unserved(request, now)
        return self._send(request, candidates, now)

    def headers_received(self, attempt: Attempt, status: int) -> None:
        """The head of a final (not 1xx) answer came and is relayed from here on."""
        request = attempt.request
        request.status = status
        request.state = State.RELAYING

    def progress(self, attempt: Attempt, tokens: int, now: float) -> None:
        """``tokens`` more tokens were streamed: the first at once, later several in a call."""
        request = attempt.request
        if request.first_byte_s is None:
            request.first_byte_s = now
        attempt.output_tokens += tokens
        attempt.replica.in_flight_output_tokens += tokens

    def attempt_ended(self, attempt: Attempt, now: float) -> Actions:
        """The answer was relayed to its end."""
        self._close(attempt)
        self._end(attempt.request, State.DONE, now, attempt.replica)
        return ()

    def attempt_failed(self, attempt: Attempt, failure: Failure, now: float) -> Actions:
        """The attempt broke; before anything was relayed the request goes elsewhere."""
        request, replica = attempt.request, attempt.replica
        self._close(attempt)
        replica.failed_total += 1
        self.counters.failed[failure] = self.counters.failed.get(failure, 0) + 1
        if request.state is State.RELAYING:
            self._end(request, State.FAILED, now, replica)
            return (Abort(request, "upstream_failed", "The replica failed in mid-answer."),)
        if request.attempts < self.limits.max_attempts:
            tried = request.tried
            others = [c for c in self.fleet.candidates(request.facts.model) if c not in tried]
            if others:
                return self._send(request, others, now)
        request.status = 502
        self._end(request, State.FAILED, now, replica)
        message = f"No replica could answer ({request.attempts} tried)."
        return (Refuse(request, 502, "upstream_failed", message, RETRY_AFTER_S),)

    def client_gone(self, request: Request, now: float) -> Actions:
        """The client left; whatever is still done for it is in vain."""
        if request.state.ended:
            return ()
        attempt = request.attempt
        if attempt is None:
            self._end(request, State.GONE, now, None)
            return ()
        self._close(attempt)
        self._end(request, State.GONE, now, attempt.replica)
        return (Cancel(attempt),)

    # -- events of the fleet ------------------------------------------------------------------

    def look_began(self, replica: Replica) -> Actions:
        """The metrics of a replica were asked for."""
        self.fleet.look_began(replica)
        return ()

    def sampled(self, replica: Replica, sample: Sample, now: float) -> Actions:
        """The metrics of a replica were read."""
        self.fleet.sampled(replica, sample, now)
        return ()

    def sample_failed(self, replica: Replica, reason: str) -> Actions:
        """The metrics of a replica could not be read."""
        self.fleet.sample_failed(replica, reason)
        return ()

    def health_seen(self, replica: Replica, *, healthy: bool, reason: str) -> Actions:
        """A replica's health endpoint answered, or did not."""
        self.fleet.health_seen(replica, healthy=healthy, reason=reason)
        return ()

    def engine_seen(self, replica: Replica, engine: str) -> Actions:
        """It was found out which engine a replica runs."""
        self.fleet.engine_seen(replica, engine)
        return ()

    def models_seen(
        self, replica: Replica, models: Iterable[str], entries: Mapping[str, bytes] | None = None
    ) -> Actions:
        """A replica listed its models; ``entries`` is what it says of each."""
        self.fleet.models_seen(replica, models, entries)
        return ()

    def tick(self, now: float) -> Actions:
        """Time has passed; to be called a few times a second."""
        self.fleet.expire_samples(now)
        return ()

    # -- inside -------------------------------------------------------------------------------

    def _send(self, request: Request, candidates: Sequence[Replica], now: float) -> Actions:
        replica = self._choose(request, candidates)
        attempt = Attempt(request, replica, now)
        request.attempt = attempt
        request.attempts += 1
        request.tried = (*request.tried, replica)
        request.state = State.SENT
        self.counters.attempts += 1
        replica.in_flight += 1
        replica.in_flight_prompt_tokens += request.facts.prompt_tokens
        replica.unseen += 1
        replica.dispatched_total += 1
        replica.last_dispatch = self.counters.attempts
        return (Send(attempt),)

    def _choose(self, request: Request, candidates: Sequence[Replica]) -> Replica:
        try:
            choice = self.policy.choose(request.facts, candidates, self.rng)
            replica = candidates[candidates.index(choice.replica)]
            reason = _checked(choice.reason)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; it is reported
            self.counters.policy_errors += 1
            self.observer.policy_failed(error)
            replica, reason = min(candidates, key=_in_flight), "fallback"
        counts = self.counters.choices
        if reason not in counts and len(counts) >= MAX_REASONS:
            reason = "other"
        counts[reason] = counts.get(reason, 0) + 1
        return replica

    def _close(self, attempt: Attempt) -> None:
        replica = attempt.replica
        attempt.request.attempt = None
        replica.in_flight -= 1
        replica.in_flight_prompt_tokens -= attempt.request.facts.prompt_tokens
        replica.in_flight_output_tokens -= attempt.output_tokens

    def _refuse_unserved(self, request: Request, now: float) -> Actions:
        model = request.facts.model
        if model is not None and self.fleet.replicas and not self.fleet.knows(model):
            status, code, retry_after_s = 404, "model_not_found", None
            served = ", ".join(sorted(self.fleet.models())) or "none yet"
            message = f"The model `{model}` does not exist. Models served: {served}."
        else:
            status, code, retry_after_s = 503, "no_replica_ready", RETRY_AFTER_S
            message = "No replica that serves this request is ready."
        request.status = status
        self._end(request, State.REFUSED, now, None)
        return (Refuse(request, status, code, message, retry_after_s),)

    def _end(self, request: Request, state: State, now: float, replica: Replica | None) -> None:
        request.state = state
        self.open.discard(request)
        self.counters.ended[state] = self.counters.ended.get(state, 0) + 1
        self.observer.request_ended(request, replica, now)


def _checked(reason: object) -> str:
    if not isinstance(reason, str):
        msg = f"the policy gave {reason!r} as its reason; allowed: a string"
        raise TypeError(msg)
    return reason


def _in_flight(replica: Replica) -> int:
    return replica.in_flight
