"""How late the event loop is: the one number that says whether the router itself is the brake."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from router.telemetry.histogram import Histogram

INTERVAL_S = 0.25


class LoopLag:
    """Measures, four times a second, how long after its time a timer runs.

    Args:
        loop: The event loop.
        histogram: Where to count.
    """

    def __init__(self, loop: AbstractEventLoop, histogram: Histogram) -> None:
        self._loop = loop
        self._histogram = histogram
        self._timer: TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._due_s = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due_s, self._ring)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._histogram.observe(max(0.0, self._loop.time() - self._due_s))
        self.start()
