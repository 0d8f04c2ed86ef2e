"""What a fault of a scenario does to a replica and to those who watch it."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from loadgen.simulate.scenario import Die, Hang, Metrics, Resume, Return, Slow

if TYPE_CHECKING:
    from loadgen.simulate.scenario import Fault
    from loadgen.simulate.station import Station
    from loadgen.simulate.watch import Watch


def befall(fault: Fault, station: Station, watch: Watch) -> None:
    """Let ``fault`` happen now."""
    match fault:
        case Slow():
            station.slow_down(fault.factor)
        case Metrics():
            watch.metrics = fault.how
        case Hang():
            station.hang(health=fault.health)
            watch.went_silent()
        case Die():
            station.die()
            watch.health_changed()
        case Resume():
            station.resume()
            watch.health_changed()
        case Return():
            station.come_back()
            watch.health_changed()
        case _:
            assert_never(fault)
