"""The state machine that decides what happens to each request.

One object, driven by the asyncio shell and by the simulator alike. Each method is an event; it
returns the actions that its driver has to perform. All times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router.core.actions import Actions, Cancel, Refuse
from router.core.admission import Admission, HeadroomSettings
from router.core.books import Books, Observer
from router.core.chooser import Chooser
from router.core.drain_rules import DrainSettings
from router.core.draining import Draining
from router.core.estimator import Estimator
from router.core.gray import GraySettings
from router.core.health import Health
from router.core.hedging import Hedging
from router.core.hold import HoldLimits
from router.core.judging import Judge
from router.core.placement import Placement
from router.core.prefix_index import PrefixIndex
from router.core.request import Attempt, Failure, Leg, Request, State
from router.core.retry import Next, RetryBudget, RetrySettings
from router.core.retrying import Retrying
from router.core.splitting import Splitting
from router.core.stall import StallSettings
from router.core.waiting import Waiting
from router.core.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from random import Random

    from policies.base import Policy
    from router.core.actions import Action
    from router.core.decisions import Decisions
    from router.core.fleet import FleetState
    from router.core.replica import PartInSplits, Replica
    from router.core.retry import Verdict
    from router.core.sample import Sample

LOOK_AGAIN_S = 0.05
"""A poll lets the router look again at what it holds, if nothing else did for so long."""

NOT_RELAYED_FROM = 400
"""Statuses from here on are weighed before anything is relayed."""

# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_DONE, _RELAYING = State.DONE, State.RELAYING
_WHOLE, _DECODE = Leg.WHOLE, Leg.DECODE


@dataclass(slots=True)
class Limits:
    """Bounds of the dispatcher; the settings of health are the fleet's."""

    retry: RetrySettings = field(default_factory=RetrySettings)
    stall: StallSettings = field(default_factory=StallSettings)
    gray: GraySettings = field(default_factory=GraySettings)
    drain: DrainSettings = field(default_factory=DrainSettings)
    headroom: HeadroomSettings = field(default_factory=HeadroomSettings)
    hedge_after_s: float = 0.0
    """A stream whose first token takes so long, and longer than expected, is tried elsewhere as
    well; 0: never."""


class Dispatcher:
    """Routes requests over a fleet under a policy.

    Args:
        fleet: The fleet; the dispatcher keeps its bookkeeping of attempts.
        policy: Who chooses.
        rng: The policy's source of chance.
        observer: Told of each end, and of each change of a replica's health.
        limits: Bounds.
        hold: How much may wait in the router.
        estimator: Who predicts; a new one when left out.
        prefix_index: Which replica has seen which prompts; a new one when left out.
        decisions: Where decisions are kept to be explained; nowhere when left out.
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
        decisions: Decisions | None = None,
    ) -> None:
        self.fleet = fleet
        self.observer = observer
        self.limits = limits or Limits()
        self.hold = hold or HoldLimits()
        self.estimator = estimator or Estimator()
        self.prefix_index = prefix_index or PrefixIndex()
        self.chooser = Chooser(policy, rng, observer, self.estimator, self.prefix_index)
        self.budget = RetryBudget(self.limits.retry)
        self.admission = Admission(self.limits.headroom, fleet)
        """What the fleet has taken on."""
        fleet.health.can_spare = self.admission.can_spare
        self.decisions = decisions
        self._books = Books(
            fleet,
            observer,
            self.estimator,
            self.prefix_index,
            self.budget,
            admission=self.admission,
            decisions=decisions,
        )
        self.counters = self._books.counters
        self.open = self._books.open
        """Requests that have not ended."""
        self.wait_times = self._books.wait_times
        self._placement = Placement(fleet, self.chooser)
        self.waiting = Waiting(self.hold, fleet, self._placement, self._books, self.budget)
        """Requests that wait in the router."""
        self._retrying = Retrying(
            self.limits.retry, self.budget, self._books, self._placement, self.waiting
        )
        self._judge = Judge(fleet, observer)
        self.draining = Draining(fleet, self.admission, self._judge, self.limits.drain)
        self._watching = Watching(
            fleet, self.estimator, self._judge, self.limits.stall, self.limits.gray
        )
        self._hedging = Hedging(
            self.limits.hedge_after_s, self._placement, self._books, self.budget, self._judge
        )
        self._splitting = Splitting(self._books, self._judge, self.estimator)
        self._looked_s = 0.0

    # -- events of requests -------------------------------------------------------------------

    def request_arrived(self, request: Request, now: float) -> Actions:
        """A request is complete and wants a replica."""
        self._books.arrived(request)
        if self.waiting.count and self.waiting.held:
            if not self.fleet.candidates(request.facts.model):
                return self.waiting.nobody(request, now)
            self.chooser.prepare(request, now)
            return self._keep_out(request, now) or [
                *self.waiting.hold(request, None, now),
                *self._release(now),
            ]
        choice = self._placement.place(request, now)
        if choice is None:
            return self.waiting.nobody(request, now)
        refused = self._keep_out(request, now)
        if refused:
            return refused
        if choice.hold and self.hold.enabled:
            return self.waiting.hold(request, choice, now)
        if self.hold.shed_late:
            self.waiting.sent(request, now)
        return self._books.send(request, choice, now)

    def headers_received(
        self, attempt: Attempt, status: int, now: float, retry_after_s: float | None = None
    ) -> Actions:
        """The head of a final (not 1xx) answer came.

        Args:
            attempt: Which one.
            status: Its status.
            now: The time.
            retry_after_s: From its head.

        Returns:
            What is to be done, which may be nothing. If the answer is to be dropped the attempt is
            over (``attempt.request.attempt`` is another one, or none). Otherwise the answer is
            relayed from here on; it may be that of a prefill leg, if it is an error.
        """
        request = attempt.request
        actions: Actions = ()
        if status >= NOT_RELAYED_FROM:
            actions = self._weigh(attempt, status, now, retry_after_s)
            if request.attempt is not attempt:
                return actions
        if not request.relayed:
            request.relayed = True
            request.status = status
        request.state = _RELAYING
        return actions

    def answer_begins(self, attempt: Attempt, now: float) -> Actions:
        """Of a request with two tries this one answers first, with no error; its driver tells of
        the head next. Until then nothing may have been relayed."""
        return [*self._hedging.begins(attempt, now), *self._release(now)]

    def prefilled(self, leg: Attempt, now: float) -> Actions:
        """The prompt of a split request was computed, and its KV can be fetched."""
        self._splitting.prefilled(leg, now)
        return self._release(now)

    def prefill_unusable(self, leg: Attempt, now: float) -> Actions:
        """The prompt of a split request was computed, but what its KV is fetched by was not told:
        the replica that was to answer serves the request whole."""
        self._splitting.unusable(leg, now)
        return self._release(now)

    def progress(self, attempt: Attempt, tokens: int, now: float) -> Actions:
        """``tokens`` more tokens were streamed: the first at once, later several in a call."""
        request, replica = attempt.request, attempt.replica
        attempt.output_tokens += tokens
        attempt.reports += 1
        attempt.heard_s = now
        replica.in_flight_output_tokens += tokens
        replica.silence.heard(now)
        replica.meter.streamed(tokens)
        self.estimator.progress(attempt, tokens, now)
        if replica.health.probing:
            self._judge.streamed(attempt, now)
        if attempt.reports > 1:
            return ()
        if request.split is not None:
            self._splitting.first_token(attempt, now)
        if request.first_byte_s is None:
            request.first_byte_s = now
        self._books.retry_over(attempt)
        if request.facts.streamed:
            self._books.first_token(attempt, now)
            if attempt.leg is not _DECODE:
                replica.meter.first_token(
                    now - attempt.started_s, attempt.expected_s, attempt.prefill_s
                )
        return self._release(now)

    def attempt_ended(self, attempt: Attempt, now: float) -> Actions:
        """The answer was relayed to its end."""
        request, replica = attempt.request, attempt.replica
        status = request.status or 0
        if request.first_byte_s is None:  # an answer in one piece, of which nobody told before
            request.first_byte_s = now
        drops = self._splitting.part(attempt, now) if request.split is not None else ()
        self._books.close(attempt, now, str(status), whole=True)
        replica.silence.heard(now)
        if status < NOT_RELAYED_FROM:
            self._judge.answered(attempt, status, now)
        self._books.end(request, _DONE, now, replica)
        return [*drops, *self._release(now)] if drops else self._release(now)

    def attempt_failed(self, attempt: Attempt, failure: Failure, now: float) -> Actions:
        """The attempt broke.

        Before anything was relayed the request goes elsewhere, and so does an answer that can be
        continued (``Request.continuable``): the action is then a Send that says so.
        """
        request, replica = attempt.request, attempt.replica
        drops = self._splitting.part(attempt, now) if request.split is not None else ()
        self._books.close(attempt, now, failure.value)
        request.failed_at(replica, now)
        replica.failed_total += 1
        self.counters.failed[failure] = self.counters.failed.get(failure, 0) + 1
        self._judge.failed(attempt, failure, now)
        if request.attempt is not None:  # its second try goes on
            return self._release(now)
        verdict = self._retrying.after_failure(attempt, failure, now)
        return [*drops, *self._go_on(request, verdict, replica, now)]

    def continuation_settled(self, attempt: Attempt, now: float, *, complete: bool) -> Actions:
        """A Send that continues needed no sending, or could not be made.

        Args:
            attempt: Which one; nothing was sent for it.
            now: The time.
            complete: The answer was complete already; otherwise it cannot be continued.
        """
        request, replica = attempt.request, attempt.replica
        drops = self._splitting.part(attempt, now) if request.split is not None else ()
        self._books.close(attempt, now, "complete" if complete else "not_continued")
        self._judge.left(attempt)
        if complete:
            self._books.end(request, State.DONE, now, replica)
            return [*drops, *self._release(now)]
        return [*drops, *self._retrying.give_up(request, replica, now), *self._release(now)]

    def client_gone(self, request: Request, now: float) -> Actions:
        """The client left; whatever is still done for it is in vain."""
        if request.state.ended:
            return ()
        attempt = request.attempt
        if attempt is None:
            self.waiting.leave(request)
            last = request.tried[-1] if request.tried else None
            self._books.end(request, State.GONE, now, last)
            return ()
        drops = self._hedging.begins(attempt, now) if request.hedge is not None else ()
        if request.split is not None:
            drops = self._splitting.part(attempt, now)
        self._books.close(attempt, now, State.GONE.value)
        self._judge.left(attempt)
        self._books.end(request, State.GONE, now, attempt.replica)
        return (*drops, Cancel(attempt), *self._release(now))

    def client_paused(self, attempt: Attempt, now: float, *, paused: bool) -> None:
        """The client of a stream stopped reading, or reads on: silence is not the replica's."""
        attempt.paused = paused
        attempt.heard_s = now
        attempt.replica.silence.woken(now)

    # -- events of the fleet ------------------------------------------------------------------

    def look_began(self, replica: Replica) -> Actions:
        """The metrics of a replica were asked for."""
        self.fleet.look_began(replica)
        return ()

    def sampled(self, replica: Replica, sample: Sample, now: float) -> Actions:
        """The metrics of a replica were read."""
        self.fleet.sampled(replica, sample, now)
        self.estimator.sampled(replica, now)
        self.prefix_index.capacity(replica.name, replica.kv_tokens)
        return self._release(now) if now - self._looked_s > LOOK_AGAIN_S else ()

    def sample_failed(self, replica: Replica, reason: str) -> Actions:
        """The metrics of a replica could not be read."""
        self.fleet.sample_failed(replica, reason)
        return ()

    def health_seen(self, replica: Replica, now: float, *, healthy: bool, reason: str) -> Actions:
        """A replica's health endpoint answered, or did not."""
        change = self.fleet.health_seen(replica, healthy=healthy, reason=reason, now=now)
        if change is None:
            return ()
        if change.before is Health.DOWN:
            # It may be another process: what it had in its cache, and how slow it was, is gone.
            self.prefix_index.forget(replica.name)
            self.estimator.returned(replica)
            self._watching.forget(replica)
        self._judge.note(change)
        return self._release(now)

    def engine_seen(self, replica: Replica, engine: str) -> Actions:
        """It was found out which engine a replica runs."""
        self.fleet.engine_seen(replica, engine)
        return ()

    def role_seen(self, replica: Replica, part: PartInSplits) -> Actions:
        """A replica told what it is there for, where requests are split."""
        self.fleet.role_seen(replica, part)
        return ()

    def models_seen(
        self, replica: Replica, models: Iterable[str], entries: Mapping[str, bytes] | None = None
    ) -> Actions:
        """A replica listed its models; ``entries`` is what it says of each."""
        self.fleet.models_seen(replica, models, entries)
        self.estimator.joined(replica)
        return ()

    def drain(self, name: str, now: float, *, force: bool = False, detail: str = "") -> Actions:
        """As :meth:`router.core.draining.Draining.drain`."""
        self.draining.drain(name, now, force=force, detail=detail)
        return self._release(now)

    def undrain(self, name: str, now: float, *, detail: str = "") -> Actions:
        """As :meth:`router.core.draining.Draining.undrain`."""
        self.draining.undrain(name, now, detail=detail)
        return self._release(now)

    def tick(self, now: float) -> Actions:
        """Time has passed; to be called a few times a second."""
        for late in self.fleet.expire_samples(now):
            self.estimator.sampled(late, now)
        self.estimator.tick(now)
        for change in self.fleet.health.tick(now):
            self._judge.note(change)
        actions: list[Action] = []
        for attempt in self._watching.lost(self.open, now):
            if attempt.request.carries(attempt):
                actions.append(Cancel(attempt))
                actions.extend(self.attempt_failed(attempt, Failure.STALL, now))
        self._watching.weigh(now)
        if self._hedging.after_s:
            actions.extend(self._hedging.due(self.open, now))
        if self.waiting.count:
            actions.extend(self.waiting.expire(now))
            actions.extend(self._release(now))
        return actions

    # -- inside -------------------------------------------------------------------------------

    def _release(self, now: float) -> Actions:
        self._looked_s = now
        return self.waiting.release(now) if self.waiting.count else ()

    def _keep_out(self, request: Request, now: float) -> Actions:
        """Refuse what the fleet could not carry without its largest replica, if that is asked of
        it; nothing: the request was let in."""
        again_s = self.admission.arrived(request, now)
        if again_s is None:
            return ()
        self.counters.over_headroom += 1
        message = "The fleet is kept fit to lose a replica, and could not carry this request then."
        return (self._books.refuse(Refuse(request, 429, "overloaded", message, again_s), now),)

    def _weigh(
        self, attempt: Attempt, status: int, now: float, retry_after_s: float | None
    ) -> Actions:
        """Judge the replica by an error, and decide whether the client gets to see it."""
        request = attempt.request
        request.failed_at(attempt.replica, now)
        self._judge.erred(attempt, status, now, retry_after_s)
        if request.hedge is not None:
            self._books.turned_away(attempt, status, now)
            return self._release(now)
        verdict = self._retrying.after_status(attempt, status, now)
        drops = self._splitting.part(attempt, now) if request.split is not None else ()
        if verdict.then is Next.RELAY:
            request.attempt = attempt  # be it a leg's: the client gets its error
            attempt.leg = _WHOLE
            return drops
        self._books.turned_away(attempt, status, now)
        return [*drops, *self._go_on(request, verdict, attempt.replica, now)]

    def _go_on(self, request: Request, verdict: Verdict, last: Replica, now: float) -> Actions:
        """What becomes of a request that lost its replica, and of those who find room there."""
        return [*self._retrying.go_on(request, verdict, last, now), *self._release(now)]
