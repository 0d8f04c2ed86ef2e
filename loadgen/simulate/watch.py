"""The polls of one replica, as :mod:`router.polling` makes them, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from loadgen.simulate.workload import MODEL

if TYPE_CHECKING:
    from random import Random

    from loadgen.simulate.agenda import Agenda
    from loadgen.simulate.settings import Delays
    from loadgen.simulate.station import Station
    from router.core.actions import Actions
    from router.core.dispatcher import Dispatcher
    from router.core.sample import Sample

REFUSED = "connection refused"


class Performer(Protocol):
    """Does what the dispatcher asks for."""

    def perform(self, actions: Actions) -> None:
        """Do it."""


class Watch:
    """The looks at one replica.

    The gauges are read when the question has reached the replica, and believed when the answer
    has reached the router. A death, or a return, is seen at the next look at its health: within
    one interval. The stretching of intervals in fleets of thousands is left out.

    Args:
        station: Whom to watch.
        dispatcher: Who is told.
        performer: Who does what it then asks for.
        agenda: Time.
        delays: When to look, and how long that takes.
        rng: Source of the jitter.
    """

    def __init__(
        self,
        station: Station,
        dispatcher: Dispatcher,
        performer: Performer,
        *,
        agenda: Agenda,
        delays: Delays,
        rng: Random,
    ) -> None:
        self._station = station
        self._dispatcher = dispatcher
        self._performer = performer
        self._agenda = agenda
        self._delays = delays
        self._rng = rng
        self._shown: Sample | None = None
        """What the metrics page showed last."""
        self.metrics: Literal["ok", "error", "frozen"] = "ok"
        """What ails the metrics page."""

    def begin(self) -> None:
        """Let the router know the replica, as it does long before the first request; then look."""
        replica, dispatcher = self._station.replica, self._dispatcher
        perform = self._performer.perform
        perform(dispatcher.models_seen(replica, (MODEL,)))
        perform(dispatcher.health_seen(replica, self._agenda.now_s, healthy=True, reason="ok"))
        self._shown = self._station.sample()
        self._answered(self._shown, REFUSED)
        self._agenda.after(self._rng.random() * self._delays.poll_interval_s, self._look)

    def health_changed(self) -> None:
        """The replica died, returned or goes on; that will be seen."""
        delays = self._delays
        seen_s = self._rng.random() * delays.poll_interval_s + 2 * delays.network_s
        self._agenda.after(seen_s, self._look_at_health)

    def went_silent(self) -> None:
        """The replica hangs: silence counts when two looks in a row have met it."""
        delays = self._delays
        seen_s = self._rng.random() * delays.poll_interval_s
        seen_s += delays.poll_interval_s + 2 * delays.poll_timeout_s
        self._agenda.after(seen_s, self._look_at_health)

    def _look_at_health(self) -> None:
        station = self._station
        healthy, reason = True, "ok"
        if station.engine is None:
            healthy, reason = False, REFUSED
        elif station.silent:
            healthy, reason = False, self._timed_out
        now = self._agenda.now_s
        self._performer.perform(
            self._dispatcher.health_seen(station.replica, now, healthy=healthy, reason=reason)
        )

    @property
    def _timed_out(self) -> str:
        return f"no answer within {self._delays.poll_timeout_s:g} s"

    def _look(self) -> None:
        replica, delays = self._station.replica, self._delays
        if not replica.healthy:
            self._again()
            return
        self._performer.perform(self._dispatcher.look_began(replica))
        self._agenda.after(delays.network_s, self._read)

    def _read(self) -> None:
        delays = self._delays
        if self._station.silent:
            delay_s = delays.poll_timeout_s - delays.network_s
            self._agenda.after(delay_s, self._come, None, self._timed_out)
            return
        sample, problem = self._station.sample(), REFUSED
        if self.metrics == "error" and sample is not None:
            sample, problem = None, "/metrics answers 500"
        elif self.metrics == "frozen" and sample is not None:
            sample = self._shown or sample
        self._shown = sample or self._shown
        delay_s = delays.poll_answer_s + delays.network_s
        self._agenda.after(delay_s, self._come, sample, problem)

    def _come(self, sample: Sample | None, problem: str) -> None:
        self._answered(sample, problem)
        self._again()

    def _answered(self, sample: Sample | None, problem: str) -> None:
        station, dispatcher = self._station, self._dispatcher
        if sample is None:
            actions = dispatcher.sample_failed(station.replica, problem)
        else:
            actions = dispatcher.sampled(station.replica, sample, self._agenda.now_s)
        self._performer.perform(actions)

    def _again(self) -> None:
        jitter = self._delays.poll_jitter
        factor = 1 + self._rng.uniform(-jitter, jitter)
        self._agenda.after(self._delays.poll_interval_s * factor, self._look)
