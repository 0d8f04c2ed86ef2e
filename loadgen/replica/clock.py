"""Virtual time at a constant multiple of the event loop's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class VirtualClock:
    """Virtual seconds, which start at 0 and run ``speed`` times as fast as ``loop_time``."""

    __slots__ = ("_loop_time", "_origin", "speed")

    def __init__(self, loop_time: Callable[[], float], speed: float) -> None:
        self._loop_time = loop_time
        self._origin = loop_time()
        self.speed = speed

    def now_s(self) -> float:
        """Virtual time now."""
        return (self._loop_time() - self._origin) * self.speed

    def loop_s(self, virtual_s: float) -> float:
        """When, on the loop's clock, it will be ``virtual_s``."""
        return self._origin + virtual_s / self.speed


class Lag:
    """How far behind its own clock the replica has been of late, in real seconds.

    The largest value of the last five to ten seconds: a scrape sees it however it comes.
    """

    __slots__ = ("_before_s", "_now_s", "_since_s")

    WINDOW_S = 5.0

    def __init__(self) -> None:
        self._since_s = 0.0
        self._now_s = 0.0
        self._before_s = 0.0

    def note(self, lag_s: float, now: float) -> None:
        """A step that was due ``lag_s`` ago is handled at ``now``."""
        self._turn(now)
        self._now_s = max(self._now_s, lag_s)

    def worst_s(self, now: float) -> float:
        """The largest lag noted of late."""
        self._turn(now)
        return max(self._now_s, self._before_s)

    def _turn(self, now: float) -> None:
        windows = int((now - self._since_s) / self.WINDOW_S)
        if windows > 0:
            self._before_s = self._now_s if windows == 1 else 0.0
            self._now_s = 0.0
            self._since_s += windows * self.WINDOW_S
