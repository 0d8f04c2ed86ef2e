"""Every request that is open, every attempt, and what was charged to whom for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from router.core.actions import Refuse, Send
from router.core.request import Attempt, Failure, Leg, Request, Split, State
from router.core.wait_times import WaitTimes

if TYPE_CHECKING:
    from policies.base import Choice
    from router.core.admission import Admission
    from router.core.decisions import Decisions
    from router.core.estimator import Estimator
    from router.core.fleet import FleetState
    from router.core.health import Transition
    from router.core.prefix_index import PrefixIndex
    from router.core.replica import Replica
    from router.core.retry import RetryBudget

# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_HELD, _SENT = State.HELD, State.SENT
_WHOLE, _PREFILL, _DECODE = Leg.WHOLE, Leg.PREFILL, Leg.DECODE


class Observer(Protocol):
    """Who wants to know how requests end, and how replicas fare."""

    def request_ended(self, request: Request, replica: Replica | None, now: float) -> None:
        """``request`` reached one of its ends; ``replica`` had its last attempt."""

    def policy_failed(self, error: Exception) -> None:
        """The policy raised, or chose what it was not offered; a fallback chose instead."""

    def health_changed(self, change: Transition) -> None:
        """A replica's health changed, or ought to have but for the sake of the fleet."""


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    arrived: int = 0
    attempts: int = 0
    ended: dict[State, int] = field(default_factory=dict)
    failed: dict[Failure, int] = field(default_factory=dict)
    turned_away: dict[int, int] = field(default_factory=dict)
    """Error answers that no client saw because the request went elsewhere, by status."""
    hedged: int = 0
    """Second tries beside a first one that was late."""
    hedges_won: int = 0
    """Those of them that answered first."""
    split: int = 0
    """Requests whose prompt was sent to one replica and their answer asked of another."""
    prefills_unusable: int = 0
    """Prompts that were computed so that no other replica can go on from them."""
    continued: int = 0
    """Attempts that went on with an answer that had broken."""
    held: int = 0
    """Requests that had to wait in the router."""
    shed: int = 0
    """Requests refused because too much waited already."""
    shed_late: int = 0
    """Requests refused because they would have waited past their objective."""
    over_headroom: int = 0
    """Requests refused because the fleet is kept fit to lose a replica."""
    expired: int = 0
    """Requests whose deadline passed while they waited."""
    stranded: int = 0
    """Requests that waited in vain for a replica to come back."""


class Books:
    """Opens and closes requests and attempts.

    Args:
        fleet: Whose replicas are charged.
        observer: Told of each end.
        estimator: Told of each attempt.
        prefix_index: Told of each prompt that is sent, and when its answer is over.
        budget: Told of the ends of retries.
        admission: Told of the ends of requests.
        decisions: Where each choice is kept; None: nowhere.
    """

    def __init__(
        self,
        fleet: FleetState,
        observer: Observer,
        estimator: Estimator,
        prefix_index: PrefixIndex,
        budget: RetryBudget,
        *,
        admission: Admission,
        decisions: Decisions | None = None,
    ) -> None:
        self.counters = Counters()
        self.open: set[Request] = set()
        """Requests that have not ended."""
        self.wait_times = WaitTimes()
        """Of requests that were sent after they had waited; each wait counts."""
        self._fleet = fleet
        self._observer = observer
        self._estimator = estimator
        self._prefix_index = prefix_index
        self._budget = budget
        self._admission = admission
        self._decisions = decisions

    def arrived(self, request: Request) -> None:
        """A request is there."""
        self.counters.arrived += 1
        self.open.add(request)
        request.number = self.counters.arrived
        self._budget.arrived()

    def send(
        self, request: Request, choice: Choice, now: float, *, is_retry: bool = False
    ) -> tuple[Send]:
        """Open an attempt; ``is_retry``: the budget of retries was charged with it."""
        split = choice.prefill is not None
        attempt = request.attempt = self.open_attempt(
            request, choice, now, is_retry=is_retry, leg=_DECODE if split else _WHOLE
        )
        request.state = _SENT
        leg = None
        if split:
            leg = Attempt(request, cast("Replica", choice.prefill), now)
            leg.leg = _PREFILL
            request.split = Split(leg)
            self.counters.split += 1
            self._charge(leg, now)
        if not request.relayed:
            return (Send(attempt, prefill=leg),)
        request.continued += 1
        self.counters.continued += 1
        return (Send(attempt, continues=True, prefill=leg),)

    def open_attempt(
        self,
        request: Request,
        choice: Choice,
        now: float,
        *,
        is_retry: bool,
        leg: Leg = _WHOLE,
    ) -> Attempt:
        """An attempt that is charged to its replica; whose it is, is not said yet."""
        replica = cast("Replica", choice.replica)  # the chooser has seen to that
        attempt = Attempt(request, replica, now)
        attempt.is_retry = is_retry
        attempt.leg = leg
        request.attempts += 1
        request.tried = (*request.tried, replica)
        held_s = 0.0
        if request.state is _HELD:
            held_s = now - request.held_s
            self.wait_times.observe(held_s)
        self._charge(attempt, now)
        if choice.ttft_s is not None:
            attempt.predicted_ttft_s = choice.ttft_s
            attempt.predicted_e2e_s = self._estimator.predict_e2e_s(attempt, choice.ttft_s)
        if self._decisions is not None:
            attempt.decision = self._decisions.record(attempt, choice, request.offered, held_s)
        return attempt

    def _charge(self, attempt: Attempt, now: float) -> None:
        """Charge an attempt to its replica."""
        replica, facts = attempt.replica, attempt.request.facts
        self.counters.attempts += 1
        health = self._fleet.health
        if health.limited:
            sides = self._fleet.sides(self._fleet.candidates(facts.model))
            side = next((side for side in sides if replica in side), sides[0] if sides else ())
            health.dispatched(replica, side, facts.prompt_tokens, now)
        if not replica.in_flight:
            replica.silence.woken(now)
        replica.in_flight += 1
        replica.in_flight_prompt_tokens += facts.prompt_tokens
        replica.unseen += 1
        replica.dispatched_total += 1
        replica.last_dispatch = self.counters.attempts
        self._estimator.sent(attempt, now)
        if facts.prefix:
            attempt.prefix_clock = self._prefix_index.sent(
                replica.name, facts.prefix, facts.prefix_block_tokens
            )

    def first_token(self, attempt: Attempt, now: float) -> None:
        """The first token of a streamed answer came."""
        if self._decisions is not None:
            self._decisions.first_token(attempt.decision, now - attempt.started_s)

    def close(self, attempt: Attempt, now: float, outcome: str, *, whole: bool = False) -> None:
        """An attempt is over; a second try beside it goes on in its place.

        Args:
            attempt: Which one.
            now: The time.
            outcome: How it ended, in a word.
            whole: At the end of its answer.
        """
        if self._decisions is not None and attempt.leg is not _PREFILL:
            self._decisions.ended(attempt.decision, now - attempt.started_s, outcome)
        replica = attempt.replica
        facts = attempt.request.facts
        self._estimator.closed(attempt, now, whole=whole)
        if facts.prefix:
            self._prefix_index.ended(
                replica.name, attempt.prefix_clock, facts.prefix, facts.prefix_block_tokens
            )
        self.retry_over(attempt)
        request = attempt.request
        if attempt.leg is _PREFILL:
            if request.split is not None:
                request.split.leg = None
        elif request.hedge is None:
            request.attempt = None
        elif request.hedge is attempt:
            request.hedge = None
        else:
            request.attempt, request.hedge = request.hedge, None
        replica.in_flight -= 1
        replica.in_flight_prompt_tokens -= facts.prompt_tokens
        replica.in_flight_output_tokens -= attempt.output_tokens

    def turned_away(self, attempt: Attempt, status: int, now: float) -> None:
        """An attempt was answered with an error that the client does not get to see."""
        self.close(attempt, now, str(status))
        counts = self.counters.turned_away
        counts[status] = counts.get(status, 0) + 1

    def retry_over(self, attempt: Attempt) -> None:
        """If the attempt is charged to the budget of retries, it is no longer."""
        if attempt.is_retry:
            attempt.is_retry = False
            self._budget.done()

    def refuse(self, refuse: Refuse, now: float, replica: Replica | None = None) -> Refuse:
        """End a request with an error of the router's own.

        Args:
            refuse: What the client is told.
            now: The time.
            replica: Who had its last attempt, if any was made.
        """
        refuse.request.status = refuse.status
        state = State.REFUSED if replica is None else State.FAILED
        self.end(refuse.request, state, now, replica)
        return refuse

    def end(self, request: Request, state: State, now: float, replica: Replica | None) -> None:
        """A request is over."""
        request.state = state
        self.open.discard(request)
        self._admission.ended(request)
        self.counters.ended[state] = self.counters.ended.get(state, 0) + 1
        self._observer.request_ended(request, replica, now)
