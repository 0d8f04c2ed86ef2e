"""Requests that wait in the router, and how they go on."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from router.core.actions import Abort, Refuse
from router.core.health import Health
from router.core.hold import HoldLimits, HoldQueue
from router.core.outflow import Outflow
from router.core.request import Request, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.base import Choice
    from router.core.actions import Action, Actions
    from router.core.books import Books
    from router.core.fleet import FleetState
    from router.core.placement import Placement
    from router.core.retry import RetryBudget

RETRY_AFTER_S: Final = 1
"""What clients are told when no replica is ready; the poller looks four times a second."""

MAX_ASKED: Final = 6
"""Waiting requests that are asked for in vain at one event; the more urgent ones come first."""


LOST_CAUSE_S: Final = 1.0
"""A request that every replica has failed waits no longer when after this time none of them is out
of service: what fails though it is well will fail again."""


class Waiting:
    """The queues of the router, which share their bounds.

    Args:
        limits: How much may wait.
        fleet: The replicas.
        placement: Where a request may go.
        books: Who sends and ends requests.
        budget: What a retry costs.
    """

    def __init__(
        self,
        limits: HoldLimits,
        fleet: FleetState,
        placement: Placement,
        books: Books,
        budget: RetryBudget,
    ) -> None:
        self.limits = limits
        self.held = HoldQueue()
        """Requests for which the policy hopes for a better moment."""
        self.stranded: dict[str | None, HoldQueue] = {}
        """Requests that no replica in service serves, by model; None: names nobody lists, too."""
        self.broken = HoldQueue()
        """Requests that lost their replica and cannot go elsewhere yet."""
        self._outflow = Outflow()
        self.count = 0
        """Requests in all queues; looked at with each answer, so it is kept rather than summed."""
        self._fleet = fleet
        self._placement = placement
        self._books = books
        self._budget = budget

    def __len__(self) -> int:
        return self.count

    @property
    def tokens(self) -> int:
        """Prompt tokens of all that waits."""
        return sum(queue.tokens for queue in self._queues())

    @property
    def may_wait(self) -> bool:
        """Whether requests may wait for a replica to come back."""
        return self.limits.enabled and self.limits.outage_s > 0

    # -- begin to wait ------------------------------------------------------------------------

    def hold(self, request: Request, choice: Choice | None, now: float) -> Actions:
        """The policy wants it to wait; ``choice``: what it said, if it was asked."""
        if choice is not None:
            request.lost = _must_miss(request, choice, now)
        if self.limits.shed_late and (request.lost or self._would_miss(request, now)):
            self.leave(request)
            return (self._shed_late(request, now),)
        return self._put(self.held, request, now)

    def nobody(self, request: Request, now: float) -> Actions:
        """A request arrived that no replica in service serves: it waits, or is refused."""
        model, fleet = request.facts.model, self._fleet
        if model is not None and fleet.replicas and not fleet.knows(model):
            served = ", ".join(sorted(fleet.models())) or "none yet"
            message = f"The model `{model}` does not exist. Models served: {served}."
            refuse = Refuse(request, 404, "model_not_found", message)
            return (self._books.refuse(refuse, now),)
        if fleet.replicas and self.may_wait:
            return self.strand(request, now)
        return (self._books.refuse(self.unserved(request, now), now),)

    def strand(self, request: Request, now: float) -> Actions:
        """No replica in service serves it."""
        model = request.facts.model
        if model is not None and not self._fleet.lists(model):
            model = None  # names that clients make up share a queue
        return self._put(self.stranded.setdefault(model, HoldQueue()), request, now)

    def park(self, request: Request, now: float, *, at_least_s: float = 0.0) -> Actions:
        """It lost its replica, and there is no other or no budget, or it is to wait
        ``at_least_s``."""
        request.not_before_s = now + at_least_s
        return self._put(self.broken, request, now)

    def sent(self, request: Request, now: float) -> None:
        """A request is being sent that waits, or did not have to."""
        if self.limits.shed_late:
            self._outflow.sent(request.facts.priority, now)

    # -- go on --------------------------------------------------------------------------------

    def leave(self, request: Request) -> None:
        """The request waits no more, if it did."""
        queue, request.queue = request.queue, None
        if queue is not None:
            queue.take(request)
            self.count -= 1

    def release(self, now: float) -> Actions:
        """Ask again for those that wait, the most urgent first."""
        actions: list[Action] = []
        if self.broken:
            self._retry(actions, now)
        if self.stranded:
            self._rescue(actions, now)
        if self.held:
            self._ask_again(actions, now)
        return actions

    def expire(self, now: float) -> Actions:
        """End what waited for too long."""
        actions: list[Action] = []
        for queue in self._queues():
            outage_s = None if queue is self.held else self.limits.outage_s
            for request in queue:
                deadline_s = request.facts.deadline_s
                if deadline_s is not None and now - request.arrived_s > deadline_s:
                    self.leave(request)
                    self._books.counters.expired += 1
                    message = "The request's deadline passed while it waited for a replica."
                    refuse = Refuse(request, 504, "deadline_exceeded", message)
                    actions.append(self._end(refuse, now))
                elif outage_s is not None and now - request.held_s >= outage_s:
                    self.leave(request)
                    self._books.counters.stranded += 1
                    actions.append(self._end(self.unserved(request, now), now))
                elif queue is self.broken and self._is_lost_cause(request, now):
                    self.leave(request)
                    actions.append(self._end(unanswered(request), now))
        return actions

    def unserved(self, request: Request, now: float) -> Refuse:
        """What a client is told whose request nobody can serve now."""
        soonest_s = self._placement.soonest_s(request, now)
        retry_after_s = RETRY_AFTER_S if soonest_s is None else max(ceil(soonest_s), RETRY_AFTER_S)
        message = "No replica that serves this request is ready."
        return Refuse(request, 503, "no_replica_ready", message, retry_after_s)

    # -- inside -------------------------------------------------------------------------------

    def _queues(self) -> Iterator[HoldQueue]:
        yield self.held
        yield from list(self.stranded.values())
        yield self.broken

    def _put(self, queue: HoldQueue, request: Request, now: float) -> Actions:
        """Let a request wait, unless too much waits already: then the least urgent must go.

        Answers that have begun never must: there are no more of them than the fleet served.
        """
        if request.state is not State.HELD:
            request.state = State.HELD
            request.held_s = now
            self._books.counters.held += 1
        self.leave(request)
        queue.put(request, lost=request.lost)
        request.queue = queue
        self.count += 1
        limits = self.limits
        if self.count <= limits.max_requests and self.tokens <= limits.max_tokens:
            return ()
        last = (queue.last_to_begin() for queue in self._queues())
        victim = next((request for request in last if request is not None), None)
        if victim is None:
            return ()
        overloaded = victim.queue is self.held
        self.leave(victim)
        self._books.counters.shed += 1
        refuse = self.unserved(victim, now)
        if overloaded:
            message = "Too many requests wait already; this one was the least urgent."
            refuse = Refuse(victim, 429, "overloaded", message, self._backlog_s())
        return (self._end(refuse, now),)

    def _retry(self, actions: list[Action], now: float) -> None:
        books, budget, queue = self._books, self._budget, self.broken
        stayed = 0
        while stayed < MAX_ASKED and stayed < len(queue) and budget.room(len(books.open)):
            request = queue.first(stayed + 1)[stayed]
            early = now < request.not_before_s
            choice = None if early else self._placement.place(request, now, backlog=True)
            if choice is None:
                stayed += 1
                continue
            self.leave(request)
            budget.take(len(books.open))
            actions.extend(books.send(request, choice, now, is_retry=True))

    def _rescue(self, actions: list[Action], now: float) -> None:
        for model, queue in list(self.stranded.items()):
            stayed = 0
            while stayed < MAX_ASKED and stayed < len(queue):
                request = queue.first(stayed + 1)[stayed]
                choice = self._placement.place(request, now, backlog=True)
                if choice is None:
                    stayed += 1
                elif choice.hold and self.limits.enabled:
                    actions.extend(self.hold(request, choice, now))
                else:
                    self.leave(request)
                    actions.extend(self._books.send(request, choice, now))
            if not queue:
                del self.stranded[model]

    def _ask_again(self, actions: list[Action], now: float) -> None:
        stayed = 0
        while stayed < MAX_ASKED and stayed < len(self.held):
            # Those that stay keep their order, so the next to be asked stands behind them.
            request = self.held.first(stayed + 1)[stayed]
            choice = self._placement.place(request, now)
            if choice is None:
                actions.extend(self.strand(request, now))
            elif self.limits.shed_late and _must_miss(request, choice, now):
                self._is_lost(actions, request, now)
            elif not choice.hold:
                self.leave(request)
                self.sent(request, now)
                actions.extend(self._books.send(request, choice, now))
            else:
                stayed += 1
                if not request.lost and _must_miss(request, choice, now):
                    self._is_lost(actions, request, now)

    def _is_lost(self, actions: list[Action], request: Request, now: float) -> None:
        """A request that waits must miss its objective."""
        request.lost = True
        if self.limits.shed_late:
            self.leave(request)
            actions.append(self._shed_late(request, now))
        else:
            self.held.put(request, lost=True)

    def _would_miss(self, request: Request, now: float) -> bool:
        """Whether it would wait past its objective, as fast as requests are sent at present."""
        objective_s = request.facts.ttft_slo_s
        if objective_s is None or not self.held:
            return False
        left_s = objective_s - (now - request.arrived_s)
        turns = self._outflow.rate(request.facts.priority, now) * left_s
        return self.held.ahead(request) + 1 > turns

    def _shed_late(self, request: Request, now: float) -> Action:
        self._books.counters.shed_late += 1
        message = "The request would wait past its objective."
        return self._end(Refuse(request, 429, "overloaded", message, self._backlog_s()), now)

    def _is_lost_cause(self, request: Request, now: float) -> bool:
        if now - request.held_s < LOST_CAUSE_S or self._placement.others(request, now):
            return False
        serving = self._fleet.serving(request.facts.model)
        return bool(serving) and all(r.health.state is Health.READY for r in serving)

    def _end(self, refuse: Refuse, now: float) -> Action:
        """End a request; one whose client has a part of an answer can only be broken off."""
        request = refuse.request
        last = request.tried[-1] if request.tried else None
        if request.relayed:
            self._books.end(request, State.FAILED, now, last)
            return Abort(request, refuse.code, refuse.message)
        return self._books.refuse(refuse, now, last)

    def _backlog_s(self) -> int:
        """When it may be worth to come again: how long the fleet needs for what it holds."""
        ready = [r.forecast for r in self._fleet.replicas.values() if r.ready and r.forecast]
        if not ready:
            return RETRY_AFTER_S
        per_token_s = sum(1 / forecast.speed.prefill_time_s(1000) for forecast in ready) * 1000
        return max(RETRY_AFTER_S, round(self.tokens / per_token_s))


def unanswered(request: Request) -> Refuse:
    """What a client is told whose request failed everywhere."""
    message = f"No replica could answer ({request.attempts} tried)."
    return Refuse(request, 502, "upstream_failed", message, RETRY_AFTER_S)


def _must_miss(request: Request, choice: Choice, now: float) -> bool:
    """Whether the request would miss its objective even if it were sent now."""
    objective_s = request.facts.ttft_slo_s
    if objective_s is None or choice.ttft_s is None:
        return False
    return now - request.arrived_s + choice.ttft_s > objective_s
