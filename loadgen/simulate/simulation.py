"""One simulation: drives the dispatcher through a workload, as the data plane does live.

Whatever actions come back from whatever event are performed here, for any request.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import TYPE_CHECKING, assert_never

from loadgen.replay.outcome import Failure as Failed
from loadgen.replay.outcome import Outcome
from loadgen.simulate.agenda import Agenda
from loadgen.simulate.faults import befall
from loadgen.simulate.gaps import TokenGaps
from loadgen.simulate.oracle import Oracle, TruePrefixIndex
from loadgen.simulate.results import meets
from loadgen.simulate.settings import LATE_SHARE
from loadgen.simulate.station import Station
from loadgen.simulate.transfers import Transfers
from loadgen.simulate.watch import Watch
from policies.base import Role
from policies.transfer import Transfer, token_s
from router.core.actions import Abort, Cancel, Hedge, Refuse, Send
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.request import Attempt, Failure, Request, State

if TYPE_CHECKING:
    from loadgen.engine.sequence import Sequence
    from loadgen.simulate.curves import LoadLog
    from loadgen.simulate.scenario import Fault
    from loadgen.simulate.settings import Settings
    from loadgen.simulate.workload import Planned, Workload
    from policies.base import Policy
    from router.core.actions import Actions
    from router.core.health import Transition
    from router.core.replica import Replica

TICK_S = 0.25
"""The live router's dispatcher is told four times a second that time passes."""


@dataclass(slots=True)
class Trip:
    """One request on its way; what a request's ``driver`` is here."""

    planned: Planned
    outcome: Outcome
    held_s: float | None = None
    """How long it waited in the router; None while it does."""
    late_gaps: int = 0
    """Gaps between its tokens that were too long."""


class Simulation:
    """A workload under a policy.

    Args:
        workload: What arrives.
        settings: On which fleet.
        policy: Who chooses.
        seed: Seed of all chance: the policy's, and the polls'.
        rate_scale: Arrivals are that many times as fast as in the workload.
        most_misses: Stop when more requests than this have missed the objective; None: never.
        load: Where to note how many requests there are where; None: nowhere.
        oracle: Whether the policy is told the truth; see :mod:`loadgen.simulate.oracle`.

    Raises:
        ValueError: A size in the settings makes no sense.
    """

    def __init__(
        self,
        workload: Workload,
        settings: Settings,
        policy: Policy,
        *,
        seed: int = 0,
        rate_scale: float = 1.0,
        most_misses: int | None = None,
        load: LoadLog | None = None,
        oracle: bool = False,
    ) -> None:
        self.agenda = Agenda()
        self.gaps = TokenGaps()
        self.outcomes: list[Outcome] = []
        """In the order of their ends."""
        self.missed = 0
        """Of them, those that did not meet the objective."""
        self.holds_s: list[float] = []
        """How long each of them waited in the router before its first attempt."""
        self.load = load
        self.policy_errors: list[Exception] = []
        """What the policy raised; a fallback chose instead."""
        self.transitions: list[Transition] = []
        """Changes of the replicas' health."""
        self.fleet = FleetState()
        self.workload = workload
        self.settings = settings
        self.rate_scale = rate_scale
        self._most_misses = len(workload.requests) if most_misses is None else most_misses
        self.stations: dict[Replica, Station] = {}
        self.dispatcher = Dispatcher(
            self.fleet,
            policy,
            Random(f"policy {seed}"),
            self,
            estimator=Oracle(self.stations, workload) if oracle else None,
            prefix_index=TruePrefixIndex(self.stations) if oracle else None,
        )
        self.transfers = Transfers(self.agenda, settings.link_bytes_per_s)
        """KV of split requests on its way."""
        self._watches: list[Watch] = []
        self._build(Random(f"polls {seed}"))

    @property
    def goodput(self) -> float:
        """Share of ended requests that met the objective."""
        return 1 - self.missed / len(self.outcomes) if self.outcomes else 0.0

    def run(self) -> bool:
        """Simulate until every request has ended; False when stopped for too many misses."""
        for watch in self._watches:
            watch.begin()
        for fault in self.settings.faults:
            self.agenda.at(fault.at_s, self._befall, fault)
        self.agenda.after(TICK_S, self._tick)
        if self.workload.requests:
            self._expect(0)
            self.agenda.run()
        return self.missed <= self._most_misses

    def perform(self, actions: Actions) -> None:
        """Do what the dispatcher asks for."""
        for action in actions:
            match action:
                case Send(prefill=Attempt() as attempt) | Send(attempt) | Hedge(attempt):
                    self._send(attempt)
                case Cancel(attempt):
                    self.transfers.drop(attempt)
                    station = self.stations[attempt.replica]
                    station.closed(attempt)
                    self.agenda.after(self.settings.delays.network_s, station.cancel, attempt)
                case Refuse() | Abort():
                    pass  # the client's end of it was noted in request_ended
                case _:
                    assert_never(action)

    # -- the dispatcher's observer ------------------------------------------------------------

    def request_ended(self, request: Request, replica: Replica | None, now: float) -> None:
        """Note how it ended."""
        trip = _trip(request)
        outcome = trip.outcome
        outcome.ended_s = now
        outcome.status = request.status
        outcome.replica = None if replica is None else replica.name
        if request.state is State.GONE:
            outcome.fail(Failed.TIMEOUT, f"no end within {self.settings.timeout_s:g} s")
        elif request.state is State.FAILED and request.status == 200:
            outcome.fail(Failed.TRUNCATED, "the replica failed in mid-answer")
        elif request.status != 200:
            outcome.fail(Failed.STATUS, f"status {request.status}")
        self.outcomes.append(outcome)
        self.holds_s.append(now - outcome.sent_s if trip.held_s is None else trip.held_s)
        self.missed += not (meets(self.settings.slo, outcome) and self._flows(trip))
        if len(self.outcomes) == len(self.workload.requests) or self.missed > self._most_misses:
            self.agenda.stop()

    def policy_failed(self, error: Exception) -> None:
        """Note that the policy broke its contract."""
        self.policy_errors.append(error)

    def health_changed(self, change: Transition) -> None:
        """Note a change of a replica's health."""
        self.transitions.append(change)

    # -- what replicas answer -----------------------------------------------------------------

    def rejected(self, attempt: Attempt, status: int) -> None:
        """The answer is an error: it is relayed, or the request goes elsewhere."""
        self.transfers.drop(attempt)
        if _is_open(attempt):
            now = self.agenda.now_s
            self.perform(self.dispatcher.headers_received(attempt, status, now))
            if attempt.request.attempt is attempt:
                self.perform(self.dispatcher.attempt_ended(attempt, now))

    def first_token(self, attempt: Attempt, sequence: Sequence) -> None:
        """The head of the answer and its first token came."""
        if not _is_open(attempt):
            return
        outcome = _trip(attempt.request).outcome
        if outcome.first_token_s is None:
            outcome.first_token_s = self.agenda.now_s
        outcome.cached_tokens = sequence.cached_tokens
        station = self.stations[attempt.replica]
        station.report_progress()
        if attempt.request.hedge is not None:
            self.perform(self.dispatcher.answer_begins(attempt, self.agenda.now_s))
        self.dispatcher.headers_received(attempt, 200, self.agenda.now_s)
        self.streamed(attempt, 1)
        station.opened(attempt)

    def finished(self, attempt: Attempt, sequence: Sequence, late_gaps: int) -> None:
        """The last token came, and the end of the answer with it."""
        if not _is_open(attempt):
            return
        _trip(attempt.request).late_gaps += late_gaps
        station = self.stations[attempt.replica]
        station.report_progress()
        station.closed(attempt)
        rest = sequence.output_tokens - attempt.output_tokens
        if rest:
            self.streamed(attempt, rest)
        outcome = _trip(attempt.request).outcome
        outcome.generated_tokens = sequence.output_tokens
        outcome.reported_prompt_tokens = sequence.prompt_tokens
        self.perform(self.dispatcher.attempt_ended(attempt, self.agenda.now_s))

    def prefilled(self, attempt: Attempt, station: Station, sequence: Sequence) -> None:
        """A prompt was computed: the replica that answers is asked, and fetches its KV."""
        answer = attempt.request.attempt
        if not _is_open(attempt) or answer is None:
            station.let_go(sequence)
            return
        self.transfers.computed(answer, station, sequence)
        self.perform(self.dispatcher.prefilled(attempt, self.agenda.now_s))
        if _is_open(answer):
            self._send(answer)

    def kv_room(self, attempt: Attempt, station: Station, sequence: Sequence) -> None:
        """The replica that answers has room for the KV."""
        if _is_open(attempt):
            self.transfers.begin(attempt, station, sequence)

    def broke(self, attempt: Attempt, failure: Failure) -> None:
        """There was no connection, or it broke."""
        self.transfers.drop(attempt)
        if _is_open(attempt):
            self._report_all_progress()
            self.perform(self.dispatcher.attempt_failed(attempt, failure, self.agenda.now_s))

    def streamed(self, attempt: Attempt, tokens: int) -> None:
        """Tokens came."""
        self.perform(self.dispatcher.progress(attempt, tokens, self.agenda.now_s))

    # -- inside -------------------------------------------------------------------------------

    def _build(self, rng: Random) -> None:
        delays = self.settings.delays
        for number, plan in enumerate(self.settings.replicas):
            replica = self.fleet.add(f"r{number}", f"http://r{number}")
            replica.role = plan.role
            link_bytes_per_s = self.settings.link_bytes_per_s
            if plan.role is not Role.PREFILL and self.settings.has_roles:
                kv_bytes = plan.profile.kv_bytes_per_token
                replica.transfer = Transfer(token_s(kv_bytes, link_bytes_per_s))
            station = self.stations[replica] = Station(
                replica,
                plan,
                key_tokens=self.workload.key_tokens,
                agenda=self.agenda,
                network_s=delays.network_s,
                router=self,
                gaps=self.gaps,
                late_s=inf if self.settings.late_gap_s is None else self.settings.late_gap_s,
            )
            self._watches.append(
                Watch(station, self.dispatcher, self, agenda=self.agenda, delays=delays, rng=rng)
            )

    def _flows(self, trip: Trip) -> bool:
        """Whether its tokens came without too many long gaps."""
        return trip.late_gaps <= LATE_SHARE * max(trip.outcome.generated_tokens - 1, 0)

    def _send(self, attempt: Attempt) -> None:
        trip = _trip(attempt.request)
        if trip.held_s is None:
            trip.held_s = self.agenda.now_s - trip.outcome.sent_s
        receive, network_s = self.stations[attempt.replica].receive, self.settings.delays.network_s
        self.agenda.after(network_s, receive, attempt, trip.planned)

    def _expect(self, number: int) -> None:
        planned = self.workload.requests[number]
        self.agenda.at(planned.arrival_s / self.rate_scale, self._arrive, planned)

    def _arrive(self, planned: Planned) -> None:
        now = self.agenda.now_s
        outcome = Outcome(
            planned.number,
            planned.prompt_tokens,
            planned.output_tokens,
            scheduled_s=now,
            sent_s=now,
        )
        request = Request(str(planned.number), planned.facts, now, Trip(planned, outcome))
        self.agenda.after(self.settings.timeout_s, self._lose_patience, request)
        self._report_all_progress()
        self.perform(self.dispatcher.request_arrived(request, now))
        if planned.number + 1 < len(self.workload.requests):
            self._expect(planned.number + 1)

    def _lose_patience(self, request: Request) -> None:
        self.perform(self.dispatcher.client_gone(request, self.agenda.now_s))

    def _tick(self) -> None:
        if any(request.attempt is None for request in self.dispatcher.open):
            self._report_all_progress()  # for those that wait in the router
        self.perform(self.dispatcher.tick(self.agenda.now_s))
        if self.load is not None:
            held = sum(request.attempt is None for request in self.dispatcher.open)
            self.load.note(self.agenda.now_s, self.stations, held)
        self.agenda.after(TICK_S, self._tick)

    def _report_all_progress(self) -> None:
        for station in self.stations.values():
            station.report_progress()

    def _befall(self, fault: Fault) -> None:
        station = list(self.stations.values())[fault.replica]
        befall(fault, station, self._watches[fault.replica])
        if station.engine is None:
            for answer in self.transfers.kept_by(station):
                self.broke(answer, Failure.GAVE_UP)


def _is_open(attempt: Attempt) -> bool:
    """Whether the router still waits for this attempt: a message may cross a cancellation."""
    return attempt.request.carries(attempt)


def _trip(request: Request) -> Trip:
    trip = request.driver
    if not isinstance(trip, Trip):
        msg = f"{request!r} is not of this simulation"
        raise TypeError(msg)
    return trip
