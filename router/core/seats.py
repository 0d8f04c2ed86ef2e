"""How many requests an engine works on at once, found out from its gauges.

Engines have a limit (vLLM: ``max_num_seqs``) that most do not publish. Past it a request waits in
the engine, where it can be overtaken by nobody and go nowhere else, however much room there is for
its KV. When every request that runs has its first token, and still others wait beside them with
room for their KV, it is a seat that they wait for; but whoever has just come may only wait for the
next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from policies.forecast import Forecast
    from router.core.replica import Replica

ROOM_BELOW: Final = 0.9
"""With more of the KV cache in use, what waits may wait for room there."""

JUST_COME_S: Final = 0.25
"""Longer than any step without a prefill."""


class Seats:
    """What was seen of one engine's seats."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = 0
        """As many ran at the last look, with all seats taken; 0: they were not."""

    def sampled(
        self,
        forecast: Forecast,
        replica: Replica,
        now: float,
    ) -> None:
        """The gauges of a replica were read; two looks must agree before they are believed."""
        running, waiting, kv_occupancy = replica.running, replica.waiting, replica.kv_occupancy
        if running is None or waiting is None:
            self._seen = 0
            return
        if forecast.seats is not None and running > forecast.seats:
            forecast.seats = None
        taken = (
            waiting > 0
            and 0 < running <= len(forecast.streams)
            and (kv_occupancy is None or kv_occupancy < ROOM_BELOW)
            and _kept_waiting(forecast, now)
        )
        if taken and running == self._seen:
            forecast.seats = running
        self._seen = running if taken else 0


def _kept_waiting(forecast: Forecast, now: float) -> bool:
    """Whether a request of ours should have its first token by now."""
    first = next(iter(forecast.prefills.values()), None)
    return first is not None and now - first.sent_s > first.time_s + JUST_COME_S
