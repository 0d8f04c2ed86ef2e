"""Looks at what replicas bring: who makes no token, which stream is stuck, who turned slow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.forecast import UNSEEN_TOKENS
from router.core.gray import GrayWatch, standard_prefill_s, standard_step_s
from router.core.stall import Stall, StallWatch, Work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from router.core.estimator import Estimator
    from router.core.fleet import FleetState
    from router.core.gray import GraySettings, Slowness
    from router.core.judging import Judge
    from router.core.replica import Replica
    from router.core.request import Attempt, Request
    from router.core.stall import StallSettings

GRAY_EVERY_S: Final = 1.0
STUCK_EVERY_S: Final = 5.0

PREEMPTED_S: Final = 10.0
"""So long after a sample told of preemptions others may still be before ours."""

LONGEST_ANSWER_TOKENS: Final = 32_768
"""Length of an answer without a bound; one in a piece gives no other sign of life."""


class Watching:
    """Keeps watch over the work of all replicas.

    Args:
        fleet: The replicas.
        estimator: What is expected of them.
        judge: Takes the consequences to their health.
        stall: How long one may be silent.
        gray: How slow one may be.
    """

    def __init__(
        self,
        fleet: FleetState,
        estimator: Estimator,
        judge: Judge,
        stall: StallSettings,
        gray: GraySettings,
    ) -> None:
        self._fleet = fleet
        self._estimator = estimator
        self._judge = judge
        self._stall = StallWatch(stall)
        self._gray = GrayWatch(gray)
        self._gray_s = self._stuck_s = 0.0
        # Below this no silence is worth a closer look.
        self._least_s = min(stall.least_s, stall.first_token_s, stall.whole_answer_s)

    def forget(self, replica: Replica) -> None:
        """The replica left, or is another process now."""
        self._gray.forget(replica.name)

    def lost(self, requests: Iterable[Request], now: float) -> list[Attempt]:
        """Attempts that will hardly go on, and ought to be dropped; who is silent is ejected.

        Args:
            requests: All that are open.
            now: The time.
        """
        found = self.stuck(requests, now)
        health = self._fleet.health
        for replica, stall in self.stalled(requests, now):
            self._judge.note(health.stalled(replica.health, stall.detail, now))
            if not replica.health.in_service:  # the last one that serves something stays
                found.extend(attempts_on(replica, requests))
        return found

    def weigh(self, now: float) -> None:
        """Cut the share of those that turned slow, or eject them."""
        for found in self.slow(now):
            replica = self._fleet.replicas.get(found.replica)
            if replica is not None:
                change = self._fleet.health.slowed(
                    replica.health, found.weight, found.detail, now, eject=found.eject
                )
                self._judge.note(change)

    def stalled(self, requests: Iterable[Request], now: float) -> list[tuple[Replica, Stall]]:
        """Who has work, and is silent for too long; to be asked a few times a second.

        Args:
            requests: All that are open.
            now: The time.
        """
        self._stall.tick(now)
        suspects = {
            replica: attempts_on(replica, requests)
            for replica in self._fleet.replicas.values()
            if replica.in_flight and now - replica.silence.heard_s > self._least_s
        }
        found = []
        for replica, attempts in suspects.items():
            stall = self._stall.look(replica.silence, self._work(replica, attempts, now), now)
            if stall is not None:
                found.append((replica, stall))
        return found

    def stuck(self, requests: Iterable[Request], now: float) -> list[Attempt]:
        """Streams that will hardly go on though their replica works; looks every few seconds."""
        if now - self._stuck_s < STUCK_EVERY_S:
            return []
        self._stuck_s = now
        oldest_s = now - self._stall.settings.stuck_s
        found = []
        for request in requests:
            attempt = request.attempt
            if attempt is None or attempt.heard_s > oldest_s or attempt.reports < 2:
                continue
            replica = attempt.replica
            if attempt.paused or replica.silence.heard_s <= attempt.heard_s:
                continue
            work = self._work(replica, attempts_on(replica, requests), now)
            if self._stall.stuck(attempt.heard_s, replica.silence, work, now):
                found.append(attempt)
        return found

    def slow(self, now: float) -> list[Slowness]:
        """Who turned slow, and who no longer is; looks once a second."""
        if now - self._gray_s < GRAY_EVERY_S:
            return []
        self._gray_s = now
        for replica in self._fleet.replicas.values():
            forecast, meter = replica.forecast, replica.meter
            if forecast is None:
                continue
            speed = forecast.speed
            step = meter.step_slowness(
                len(forecast.streams), forecast.step_s, now, forecast.under_way()
            )
            prefill = meter.prefill_slowness()
            self._gray.observe(
                replica.name,
                now,
                step_s=None if step is None else standard_step_s(speed, step),
                prefill_s=None if prefill is None else standard_prefill_s(speed, prefill),
            )
        return self._gray.look()

    def _work(self, replica: Replica, attempts: Iterable[Attempt], now: float) -> Work:
        forecast = replica.forecast
        streams = prefills = unstreamed = 0
        longest_tokens = 0
        for attempt in attempts:
            facts = attempt.request.facts
            if not facts.streamed:
                unstreamed += 1
                most = facts.max_output_tokens or LONGEST_ANSWER_TOKENS
                longest_tokens = max(longest_tokens, most)
            elif attempt.reports < 2:
                prefills += not attempt.paused
            elif not attempt.paused:
                streams += 1
        step_s = forecast.step_s if forecast is not None else 0.0
        preempted_s = replica.preempted_s
        return Work(
            streams=streams,
            prefills=prefills,
            unstreamed=unstreamed,
            report_s=UNSEEN_TOKENS * step_s,
            prefill_s=forecast.prefill_s if forecast is not None else 0.0,
            answer_s=longest_tokens * step_s,
            crowded=(forecast is not None and forecast.foreign_waiting > 0)
            or (preempted_s is not None and now - preempted_s < PREEMPTED_S),
            probing=replica.health.probing,
        )


def attempts_on(replica: Replica, requests: Iterable[Request]) -> list[Attempt]:
    """The attempts on a replica that have not ended."""
    return [a for r in requests for a in _working(r) if a.replica is replica]


def _working(request: Request) -> Iterator[Attempt]:
    """Those of a request's attempts that something is done for."""
    split = request.split
    if split is not None and split.leg is not None:
        yield split.leg  # until it is done its answer has nothing to go on from
    elif request.attempt is not None:
        yield request.attempt
    if request.hedge is not None:
        yield request.hedge
