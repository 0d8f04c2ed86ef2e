"""The state machine that decides what happens to each request.

One object, driven by the asyncio shell and by the simulator alike. Each method is an event; it
returns the actions that its driver has to perform. All times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from router.core.actions import Abort, Actions, Cancel, Refuse, Send
from router.core.chooser import Chooser
from router.core.estimator import Estimator
from router.core.hold import HoldLimits, HoldQueue
from router.core.prefix_index import PrefixIndex
from router.core.request import Attempt, Failure, Request, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from policies.base import Choice, Policy
    from router.core.fleet import FleetState
    from router.core.replica import Replica
    from router.core.sample import Sample

RETRY_AFTER_S = 1
"""What clients are told when no replica is ready; the poller looks four times a second."""

MAX_ASKED = 6
"""Held requests that are asked for again at one event; the more urgent ones come first."""

LOOK_AGAIN_S = 0.05
"""A poll lets the router look again at what it holds, if nothing else did for so long."""


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
    held: int = 0
    """Requests that had to wait in the router."""
    shed: int = 0
    """Requests refused because too much waited already."""
    expired: int = 0
    """Requests whose deadline passed while they waited."""


class Dispatcher:
    """Routes requests over a fleet under a policy.

    Args:
        fleet: The fleet; the dispatcher keeps its bookkeeping of attempts.
        policy: Who chooses.
        rng: The policy's source of chance.
        observer: Told of each end.
        limits: Bounds.
        hold: How much may wait in the router.
        estimator: Who predicts; a new one when left out.
        prefix_index: Which replica has seen which prompts; a new one when left out.
    """

    def __init__(
        self,
        fleet: FleetState,
        policy: Policy,
        rng: Random,
        observer: Observer,
        limits: Limits | None = None,
        *,
        hold: HoldLimits | None = None,
        estimator: Estimator | None = None,
        prefix_index: PrefixIndex | None = None,
    ) -> None:
        self.fleet = fleet
        self.observer = observer
        self.limits = limits or Limits()
        self.hold = hold or HoldLimits()
        self.counters = Counters()
        self.estimator = estimator or Estimator()
        self.prefix_index = prefix_index or PrefixIndex()
        self.chooser = Chooser(policy, rng, observer, self.estimator, self.prefix_index)
        self.held = HoldQueue()
        """Requests that wait for a better moment."""
        self._looked_s = 0.0
        self.open: set[Request] = set()
        """Requests that have not ended."""

    # -- events of requests -------------------------------------------------------------------

    def request_arrived(self, request: Request, now: float) -> Actions:
        """A request is complete and wants a replica."""
        self.counters.arrived += 1
        self.open.add(request)
        request.number = self.counters.arrived
        candidates = self.fleet.candidates(request.facts.model)
        if not candidates:
            return self._refuse_unserved(request, now)
        if not self.held:
            choice = self.chooser.ask(request, candidates, now)
            if not (choice.hold and self.hold.enabled):
                return self._send(request, choice, now)
            request.lost = self._must_miss(request, choice, now)
            return self._hold(request, now)
        return [*self._hold(request, now), *self._release(now)]

    def headers_received(self, attempt: Attempt, status: int) -> None:
        """The head of a final (not 1xx) answer came and is relayed from here on."""
        request = attempt.request
        request.status = status
        request.state = State.RELAYING

    def progress(self, attempt: Attempt, tokens: int, now: float) -> Actions:
        """``tokens`` more tokens were streamed: the first at once, later several in a call."""
        request = attempt.request
        attempt.output_tokens += tokens
        attempt.replica.in_flight_output_tokens += tokens
        self.estimator.progress(attempt, tokens, now)
        if request.first_byte_s is None:
            request.first_byte_s = now
            return self._release(now)
        return ()

    def attempt_ended(self, attempt: Attempt, now: float) -> Actions:
        """The answer was relayed to its end."""
        self._close(attempt, now, whole=True)
        self._end(attempt.request, State.DONE, now, attempt.replica)
        return self._release(now)

    def attempt_failed(self, attempt: Attempt, failure: Failure, now: float) -> Actions:
        """The attempt broke; before anything was relayed the request goes elsewhere."""
        request, replica = attempt.request, attempt.replica
        self._close(attempt, now)
        replica.failed_total += 1
        self.counters.failed[failure] = self.counters.failed.get(failure, 0) + 1
        if request.state is State.RELAYING:
            self._end(request, State.FAILED, now, replica)
            return (Abort(request, "upstream_failed", "The replica failed in mid-answer."),)
        if request.attempts < self.limits.max_attempts:
            tried = request.tried
            others = [c for c in self.fleet.candidates(request.facts.model) if c not in tried]
            if others:
                return self._send(request, self.chooser.ask(request, others, now), now)
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
            if request in self.held:
                self.held.take(request)
            self._end(request, State.GONE, now, None)
            return ()
        self._close(attempt, now)
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
        self.estimator.sampled(replica)
        self.prefix_index.capacity(replica.name, replica.kv_tokens)
        return self._release(now) if now - self._looked_s > LOOK_AGAIN_S else ()

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
        self.estimator.joined(replica)
        return ()

    def tick(self, now: float) -> Actions:
        """Time has passed; to be called a few times a second."""
        self.fleet.expire_samples(now)
        self.estimator.tick(now)
        return [*self._expire(now), *self._release(now)] if self.held else ()

    # -- inside -------------------------------------------------------------------------------

    def _hold(self, request: Request, now: float) -> Sequence[Refuse]:
        """Let a request wait, unless too much waits already: then the least urgent must go."""
        request.state = State.HELD
        self.counters.held += 1
        self.held.put(request, lost=request.lost)
        limits, held = self.hold, self.held
        if len(held) <= limits.max_requests and held.tokens <= limits.max_tokens:
            return ()
        victim = held.last()
        held.take(victim)
        self.counters.shed += 1
        message = "Too many requests wait already; this one was the least urgent."
        refuse = Refuse(victim, 429, "overloaded", message, self._backlog_s())
        return (self._refuse(refuse, now),)

    def _release(self, now: float) -> Sequence[Send]:
        """Ask again for those that wait, the most urgent first."""
        self._looked_s = now
        if not self.held:
            return ()
        actions: list[Send] = []
        stayed = 0
        while stayed < MAX_ASKED and stayed < len(self.held):
            # Those that stay keep their order, so the next to be asked stands behind them.
            request = self.held.first(stayed + 1)[stayed]
            candidates = self.fleet.candidates(request.facts.model)
            choice = self.chooser.ask(request, candidates, now) if candidates else None
            if choice is not None and not choice.hold:
                self.held.take(request)
                actions.extend(self._send(request, choice, now))
                continue
            stayed += 1
            if choice is not None and not request.lost and self._must_miss(request, choice, now):
                request.lost = True
                self.held.put(request, lost=True)
        return actions

    def _expire(self, now: float) -> Sequence[Refuse]:
        """Refuse what waited beyond its deadline."""
        actions = []
        for request in self.held:
            deadline_s = request.facts.deadline_s
            if deadline_s is not None and now - request.arrived_s > deadline_s:
                self.held.take(request)
                self.counters.expired += 1
                message = "The request's deadline passed while it waited for a replica."
                refuse = Refuse(request, 504, "deadline_exceeded", message)
                actions.append(self._refuse(refuse, now))
        return actions

    def _must_miss(self, request: Request, choice: Choice, now: float) -> bool:
        """Whether the request would miss its objective even if it were sent now."""
        objective_s = request.facts.ttft_slo_s
        if objective_s is None or choice.ttft_s is None:
            return False
        return now - request.arrived_s + choice.ttft_s > objective_s

    def _backlog_s(self) -> int:
        """When it may be worth to come again: how long the fleet needs for what it holds."""
        ready = [r.forecast for r in self.fleet.replicas.values() if r.ready and r.forecast]
        if not ready:
            return RETRY_AFTER_S
        per_token_s = sum(1 / forecast.speed.prefill_time_s(1000) for forecast in ready) * 1000
        return max(RETRY_AFTER_S, round(self.held.tokens / per_token_s))

    def _send(self, request: Request, choice: Choice, now: float) -> Sequence[Send]:
        replica = cast("Replica", choice.replica)  # the chooser has seen to that
        attempt = Attempt(request, replica, now)
        request.attempt = attempt
        request.attempts += 1
        request.tried = (*request.tried, replica)
        request.state = State.SENT
        self.counters.attempts += 1
        facts = request.facts
        replica.in_flight += 1
        replica.in_flight_prompt_tokens += facts.prompt_tokens
        replica.unseen += 1
        replica.dispatched_total += 1
        replica.last_dispatch = self.counters.attempts
        self.estimator.sent(attempt, now)
        if choice.ttft_s is not None:
            attempt.predicted_ttft_s = choice.ttft_s
            attempt.predicted_e2e_s = self.estimator.predict_e2e_s(attempt, choice.ttft_s)
        if facts.prefix:
            self.prefix_index.sent(replica.name, facts.prefix, facts.prefix_block_tokens)
        return (Send(attempt),)

    def _close(self, attempt: Attempt, now: float, *, whole: bool = False) -> None:
        replica = attempt.replica
        self.estimator.closed(attempt, now, whole=whole)
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
        return (self._refuse(Refuse(request, status, code, message, retry_after_s), now),)

    def _refuse(self, refuse: Refuse, now: float) -> Refuse:
        refuse.request.status = refuse.status
        self._end(refuse.request, State.REFUSED, now, None)
        return refuse

    def _end(self, request: Request, state: State, now: float, replica: Replica | None) -> None:
        request.state = state
        self.open.discard(request)
        self.counters.ended[state] = self.counters.ended.get(state, 0) + 1
        self.observer.request_ended(request, replica, now)
