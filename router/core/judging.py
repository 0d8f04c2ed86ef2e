"""What attempts say of the replicas that they were sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.health import Health
from router.core.outcome import Outcome, outcome_of_status
from router.core.request import Failure
from router.core.retrying import tries_of

if TYPE_CHECKING:
    from router.core.books import Observer
    from router.core.fleet import FleetState
    from router.core.health import Transition
    from router.core.request import Attempt


class Judge:
    """Tells the health of replicas what their attempts brought, and others what that changed.

    Args:
        fleet: The replicas.
        observer: Told of each change.
    """

    def __init__(self, fleet: FleetState, observer: Observer) -> None:
        self._fleet = fleet
        self._health = fleet.health
        self._observer = observer

    def note(self, change: Transition | None) -> None:
        """A replica's health changed: whom to offer is to be found out anew."""
        if change is not None:
            if change.before is Health.HALF_OPEN:
                self._fleet.replicas[change.replica].silence.forget_peak()
            self._fleet.forget()
            self._observer.health_changed(change)

    def streamed(self, attempt: Attempt, now: float) -> None:
        """An attempt has streamed something; of interest while its replica is half-open."""
        health, tokens = attempt.replica.health, attempt.output_tokens
        self.note(self._health.streamed(health, tokens, attempt.started_s, now))

    def answered(self, attempt: Attempt, status: int, now: float) -> None:
        """An attempt was answered to the end; errors are judged at their heads already."""
        self.note(self._health.answered(attempt.replica.health, status, attempt.started_s, now))

    def erred(self, attempt: Attempt, status: int, now: float, retry_after_s: float | None) -> None:
        """The head of an error came."""
        failed = outcome_of_status(status) is Outcome.FAILURE
        change = self._health.answered(
            attempt.replica.health,
            status,
            attempt.started_s,
            now,
            retry_after_s=retry_after_s,
            counts=failed and tries_of(attempt.request).blame(),
        )
        self.note(change)

    def failed(self, attempt: Attempt, failure: Failure, now: float) -> None:
        """An attempt broke; stalls are judged by who watches for them."""
        if failure is Failure.STALL:
            return
        change = self._health.failed(
            attempt.replica.health,
            attempt.started_s,
            now,
            counts=tries_of(attempt.request).blame(),
            refused=failure is Failure.CONNECT,
        )
        self.note(change)

    def left(self, attempt: Attempt) -> None:
        """Nobody wants the answer any more, which says nothing of the replica."""
        self._health.left(attempt.replica.health, attempt.started_s)
