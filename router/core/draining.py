"""Replicas taken out of service by command, and what the fleet must keep meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.drain_rules import Unit, check_drain, rolling_order

if TYPE_CHECKING:
    from collections.abc import Collection

    from router.core.admission import Admission
    from router.core.drain_rules import DrainSettings
    from router.core.fleet import FleetState
    from router.core.judging import Judge


class Draining:
    """Drains replicas of a live fleet.

    Args:
        fleet: The replicas.
        admission: Knows what the fleet can carry.
        judge: Told of each change.
        settings: What must stay.
    """

    def __init__(
        self, fleet: FleetState, admission: Admission, judge: Judge, settings: DrainSettings
    ) -> None:
        self._fleet = fleet
        self._admission = admission
        self._judge = judge
        self._settings = settings

    def drain(self, name: str, now: float, *, force: bool = False, detail: str = "") -> None:
        """Give a replica nothing new; what runs there goes on. It ends with a restart, or when
        undrained.

        Args:
            name: Which one.
            now: The time.
            force: Even if too few stay in service.
            detail: Why, for the log.

        Raises:
            KeyError: There is none of that name.
            DrainRefusedError: Too few would stay.
        """
        replica = self._fleet.replicas[name]
        check_drain(name, self._offered(), self._settings, force=force)
        self._judge.note(self._fleet.health.drain(replica.health, detail or "asked for", now))

    def undrain(self, name: str, now: float, *, detail: str = "") -> None:
        """Give a replica requests again.

        Raises:
            KeyError: There is none of that name.
        """
        replica = self._fleet.replicas[name]
        self._judge.note(self._fleet.health.undrain(replica.health, detail or "asked for", now))

    def rolling_order(self, now: float, *, at_once: int = 1) -> list[tuple[str, ...]]:
        """In which order to drain and restart all replicas: waves of at most ``at_once``.

        Raises:
            DrainRefusedError: The fleet can do without none of some wave.
        """
        offered, replicas = self._offered(), self._fleet.replicas.values()
        units = [Unit(r.name, r.name in offered, r.in_flight) for r in replicas]

        def carries(names: Collection[str]) -> bool:
            return self._admission.can_spare(names, now, restored=True)

        return rolling_order(units, self._settings, carries, at_once=at_once)

    def _offered(self) -> set[str]:
        """Names of those that serve: where too few are in service, that is the unproven, too."""
        return {r.name for r in self._fleet.health.in_service(self._fleet.replicas.values())}
