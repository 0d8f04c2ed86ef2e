"""The health of one replica, from what its attempts and its health endpoint say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.core.failure_window import FailureWindow
from router.core.health import Cause, Health, HealthSettings, Transition
from router.core.slow_start import SlowStart

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

PANIC_WEIGHT: Final = 0.5
"""Weight of a replica that is used although it is out of service."""

# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_HALF_OPEN: Final = Health.HALF_OPEN


class ReplicaHealth:
    """What is known of the health of one replica.

    It knows nothing of the others: whether the fleet can do without it is decided by
    :class:`router.core.fleet_health.FleetHealth`, which alone calls :meth:`eject`.

    Args:
        name: The replica's name.
        settings: Thresholds.
        rng: Source of the jitter.
        cold: It joins a running fleet: it proves itself before it gets its share.
    """

    __slots__ = (
        "_cold",
        "_failures",
        "_forgiven_s",
        "_pace_weight",
        "_phase",
        "_proves_from_s",
        "_rng",
        "_settings",
        "_silent",
        "_until_restart",
        "_window",
        "busy_until_s",
        "cause",
        "credit",
        "detail",
        "draining",
        "ejected_total",
        "ejected_until_s",
        "ejections",
        "limited",
        "models",
        "name",
        "probe_sent_s",
        "ramp",
        "since_s",
    )

    def __init__(
        self, name: str, settings: HealthSettings, rng: Random, *, cold: bool = False
    ) -> None:
        self.name = name
        self.models: frozenset[str] = frozenset()
        """What it serves; empty: anything."""
        self.draining = False
        self.cause = Cause.HEALTH_DOWN
        self.detail = "not seen yet"
        self.since_s = 0.0
        """When ``state`` last changed."""
        self.ejections = 0
        """Those not forgiven yet; they make the next one longer."""
        self.ejected_total = 0
        self.ejected_until_s = 0.0
        self.busy_until_s = 0.0
        """It said that it is busy until then."""
        self.probe_sent_s: float | None = None
        """When the probe was sent that is under way."""
        self.ramp: SlowStart | None = None
        """Its slow start, while it is warming."""
        self.limited = True
        """Whether its share of the requests is bounded."""
        self.credit = 1.0
        """Requests that it may get now, where it is."""
        self._settings = settings
        self._rng = rng
        self._cold = cold
        self._phase = Health.DOWN
        self._failures = 0
        self._window = FailureWindow(settings.failure_window_s)
        self._proves_from_s = 0.0
        self._forgiven_s = 0.0
        self._pace_weight = 1.0
        self._silent = False
        self._until_restart = False

    def __repr__(self) -> str:
        return f"<Health of {self.name}: {self.state}, {self.detail}>"

    # -- what it is -------------------------------------------------------------------------------

    @property
    def state(self) -> Health:
        """Its state; draining hides every other, except that it is down."""
        draining = self.draining and self._phase is not Health.DOWN
        return Health.DRAINING if draining else self._phase

    @property
    def reachable(self) -> bool:
        """Whether it could be given requests at all, were it well."""
        return self._phase is not Health.DOWN and not self.draining

    @property
    def in_service(self) -> bool:
        """Whether it gets ordinary requests."""
        return self._phase in _IN_SERVICE and not self.draining

    @property
    def probing(self) -> bool:
        """Whether it waits for a live request to prove itself by, or has one."""
        return self._phase is _HALF_OPEN and not self.draining

    @property
    def stalled(self) -> bool:
        """Whether it was ejected because it made no token, and has made none since."""
        return self._silent

    def weight(self, now: float) -> float:
        """Its fair share, relative to that of a replica that is well: above 0, to 1."""
        if self._phase not in _IN_SERVICE:
            return PANIC_WEIGHT
        ramp = self.ramp
        return self._pace_weight * (ramp.weight(now) if ramp is not None else 1.0)

    def snapshot(self, now: float) -> Mapping[str, object]:
        """What people and tools are shown."""
        ejected = self._phase is Health.EJECTED
        return {
            "state": self.state.value,
            "cause": self.cause.value,
            "detail": self.detail,
            "since_s": round(now - self.since_s, 3),
            "weight": round(self.weight(now), 3) if self.in_service else 0.0,
            "busy_s": round(max(self.busy_until_s - now, 0.0), 3),
            "back_in_s": round(max(self.ejected_until_s - now, 0.0), 3) if ejected else None,
            "ejected_total": self.ejected_total,
        }

    # -- active signals ---------------------------------------------------------------------------

    def seen_up(self, now: float) -> Transition | None:
        """Its health endpoint answered: the process can be reached, no more than that."""
        if self._phase is not Health.DOWN:
            return None
        if self._until_restart:
            self.draining = self._until_restart = False
        after = Health.HALF_OPEN if self._cold else Health.READY
        detail = "came back" if self._cold else "answers"
        return self._move(after, Cause.HEALTH_UP, detail, now)

    def seen_down(self, reason: str, now: float) -> Transition | None:
        """Its health endpoint does not answer, or says that it is not well."""
        self._cold = True
        if self._phase is Health.DOWN:
            self.detail = reason
            return None
        return self._move(Health.DOWN, Cause.HEALTH_DOWN, reason, now)

    # -- passive signals --------------------------------------------------------------------------

    def succeeded(self, sent_s: float, now: float) -> Transition | None:
        """An attempt sent at ``sent_s`` ended well."""
        if sent_s < self._proves_from_s:
            return None
        if self._phase is _HALF_OPEN:
            return self._passed("a live request succeeded", now)
        if self._phase in _IN_SERVICE:
            self._failures = 0
            self._window.add(now, failed=False)
        return None

    def streamed(self, sent_s: float, tokens: int, now: float) -> Transition | None:
        """An attempt sent at ``sent_s`` has streamed ``tokens`` so far.

        Only a half-open replica needs to be told.
        """
        if self._phase is not Health.HALF_OPEN or sent_s < self._proves_from_s:
            return None
        if tokens < self._settings.probe_tokens:
            return None
        return self._passed(f"a live request streamed {tokens} tokens", now)

    def failed(self, sent_s: float, now: float) -> tuple[Cause, str] | None:
        """An attempt sent at ``sent_s`` failed; returns why to eject, once there is cause.

        What was sent before the replica last came back says nothing of what it is now: when it
        breaks, all its streams do, and only the first few of them are news.
        """
        if sent_s < self._proves_from_s or self.draining:
            return None
        if self._phase is Health.HALF_OPEN:
            return Cause.PROBE_FAILED, "a live request failed"
        if self._phase not in _IN_SERVICE:
            return None
        settings = self._settings
        self._failures += 1
        self._window.add(now, failed=True)
        if self._failures >= settings.failures_in_a_row:
            return Cause.FAILURES_IN_A_ROW, f"{self._failures} attempts in a row failed"
        total, failed = self._window.counts(now)
        if total >= settings.failure_window_requests and failed >= settings.failure_share * total:
            span = f"{settings.failure_window_s:g} s"
            return Cause.FAILURE_SHARE, f"{failed} of {total} attempts failed within {span}"
        return None

    def pushed_back(self, retry_after_s: float | None, now: float) -> None:
        """It answered 429 or 503, perhaps with Retry-After: busy, not broken."""
        settings = self._settings
        busy_s = settings.busy_s if retry_after_s is None else retry_after_s
        until_s = now + min(max(busy_s, 0.0), settings.max_busy_s)
        self.busy_until_s = max(self.busy_until_s, until_s)
        self.probe_sent_s = None

    def slowed(self, weight: float) -> None:
        """It is slower than it used to be and than its peers, so it gets less; 1: it is well."""
        self._pace_weight = min(max(weight, self._settings.slow_start.least_weight), 1.0)
        self._limit()

    # -- probes --------------------------------------------------------------------------------

    def probe_sent(self, now: float) -> None:
        """A live request goes there to see how it fares."""
        if self._phase is Health.HALF_OPEN and self.probe_sent_s is None:
            self.probe_sent_s = now

    def probe_abandoned(self, sent_s: float) -> None:
        """The client of the attempt sent at ``sent_s`` left: that says nothing of the replica."""
        if self.probe_sent_s == sent_s:
            self.probe_sent_s = None

    # -- decided from outside ---------------------------------------------------------------------

    def eject(self, cause: Cause, detail: str, now: float) -> Transition | None:
        """Take it out of service for a time that doubles with each ejection."""
        settings = self._settings
        self.ejections += 1
        self.ejected_total += 1
        span_s = min(settings.eject_s * 2.0 ** min(self.ejections - 1, 30), settings.max_eject_s)
        jitter = settings.eject_jitter
        span_s *= self._rng.uniform(1 - jitter, 1 + jitter)
        self.ejected_until_s = now + span_s
        return self._move(Health.EJECTED, cause, f"{detail}; out for {span_s:.1f} s", now)

    def pardon(self, now: float) -> None:
        """It ought to be ejected but cannot be spared: evidence is gathered anew."""
        self._forget(now)

    def drain(self, detail: str, now: float, *, until_restart: bool = True) -> Transition | None:
        """Give it nothing new; ``until_restart``: until it was seen down and up again."""
        before = self.state
        self.draining = True
        self._until_restart = until_restart
        return self._changed(before, Cause.DRAIN_ASKED, detail, now)

    def undrain(self, detail: str, now: float) -> Transition | None:
        """Give it requests again; one that is up gets them by and by."""
        before = self.state
        if not self.draining:
            return None
        self.draining = self._until_restart = False
        if self._phase in _IN_SERVICE:
            self._warm(now)
            self._limit()
        return self._changed(before, Cause.DRAIN_ENDED, detail, now)

    def tick(self, now: float) -> Transition | None:
        """Time has passed."""
        settings = self._settings
        if self._phase is Health.EJECTED:
            if now >= self.ejected_until_s:
                return self._move(Health.HALF_OPEN, Cause.BACK_OFF_OVER, "back-off is over", now)
        elif self._phase is Health.HALF_OPEN:
            sent_s = self.probe_sent_s
            if sent_s is not None and now - sent_s >= settings.probe_silent_s:
                detail = f"a live request got no answer within {settings.probe_silent_s:g} s"
                return self.eject(Cause.PROBE_SILENT, detail, now)
        elif self._phase in _IN_SERVICE:
            if self.ejections and now - self._forgiven_s >= settings.forgive_s:
                self.ejections -= 1
                self._forgiven_s = now
            return self._end_ramp(now)
        return None

    # -- inside --------------------------------------------------------------------------------

    def _end_ramp(self, now: float) -> Transition | None:
        if self.ramp is None or self.ramp.weight(now) < 1.0:
            return None
        return self._move(Health.READY, Cause.WARMED_UP, "has its full share again", now)

    def _passed(self, detail: str, now: float) -> Transition | None:
        return self._move(Health.WARMING, Cause.PROBE_PASSED, detail, now)

    def _warm(self, now: float) -> None:
        self._phase = Health.WARMING
        self._failures = 0
        self._window.clear()
        self._forgiven_s = now
        self.ramp = SlowStart(self._settings.slow_start, now)
        self.credit = 1.0

    def _limit(self) -> None:
        self.limited = self._phase is not Health.READY or self._pace_weight < 1.0

    def _forget(self, now: float) -> None:
        self._failures = 0
        self._window.clear()
        self._proves_from_s = now

    def _move(self, phase: Health, cause: Cause, detail: str, now: float) -> Transition | None:
        before = self.state
        self.probe_sent_s = None
        if phase is not Health.HALF_OPEN:
            self._silent = cause in _SILENT
        if phase is Health.WARMING:
            self._warm(now)
        else:
            if self._phase is not Health.WARMING or phase is not Health.READY:
                self._forget(now)
                self._pace_weight = 1.0
            self.ramp = None
            self._phase = phase
        self._limit()
        return self._changed(before, cause, detail, now)

    def _changed(self, before: Health, cause: Cause, detail: str, now: float) -> Transition | None:
        after = self.state
        if after is before:
            return None
        self.cause, self.detail, self.since_s = cause, detail, now
        return Transition(self.name, before, after, cause, detail, now)


_IN_SERVICE = frozenset({Health.READY, Health.WARMING})
_SILENT = frozenset({Cause.STALL, Cause.PROBE_SILENT})
