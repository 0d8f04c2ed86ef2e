"""Draining: whether a replica may be taken out, and in which order a whole fleet is restarted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


class DrainRefusedError(ValueError):
    """A replica is not drained because the fleet needs it; ``str()`` is one line."""


@dataclass(slots=True, frozen=True, kw_only=True)
class DrainSettings:
    """What draining must leave."""

    min_ready: int = 1
    """Replicas that stay in service, unless the drain is forced."""


class Unit(NamedTuple):
    """One replica to be restarted."""

    name: str
    in_service: bool
    in_flight: int
    """Requests that have to end before it can be stopped."""


def check_drain(
    name: str, in_service: Collection[str], settings: DrainSettings, *, force: bool = False
) -> None:
    """Refuse a drain that would leave too few replicas in service.

    Args:
        name: The replica to be drained.
        in_service: Names of those in service now.
        settings: How many must stay.
        force: Drain it all the same.

    Raises:
        DrainRefusedError: Too few would stay. One that is out of service already may always be
            drained.
    """
    if force or name not in in_service:
        return
    left = len(in_service) - 1
    if left < settings.min_ready:
        msg = (
            f"draining {name} would leave {left} replicas in service,"
            f" at least {settings.min_ready} must stay; force it to drain all the same"
        )
        raise DrainRefusedError(msg)


def rolling_order(
    fleet: Sequence[Unit],
    settings: DrainSettings,
    carries: Callable[[Collection[str]], bool] | None = None,
    *,
    at_once: int = 1,
) -> list[tuple[str, ...]]:
    """In which order to drain and restart every replica of a fleet.

    What is out of service goes first and all at once, since nobody misses it, then what has least
    to end. Each wave is to be in service again, its slow start over, before the next one begins.

    Args:
        fleet: All replicas.
        settings: How many must stay in service.
        carries: Whether the fleet carries its load without replicas of these names; None: yes.
        at_once: Largest number in a wave; fewer, where the fleet could not do without so many.

    Returns:
        The waves, of names.

    Raises:
        DrainRefusedError: The fleet can do without none of some wave.
    """
    idle = tuple(unit.name for unit in fleet if not unit.in_service)
    waves = [idle] if idle else []
    left = sorted((u for u in fleet if u.in_service), key=lambda unit: unit.in_flight)
    # A wave that is through is in service again, and so is what was out of service before.
    most = min(at_once, len(fleet) - settings.min_ready)
    while left:
        wave = _largest_wave([unit.name for unit in left[: max(most, 0)]], carries)
        if not wave:
            msg = (
                f"not even {left[0].name} can be restarted: of {len(fleet)} replicas at least"
                f" {settings.min_ready} must stay in service, and must carry the load"
            )
            raise DrainRefusedError(msg)
        waves.append(wave)
        left = left[len(wave) :]
    return waves


def _largest_wave(
    names: list[str], carries: Callable[[Collection[str]], bool] | None
) -> tuple[str, ...]:
    while names and carries is not None and not carries(names):
        names = names[:-1]
    return tuple(names)
