"""Virtual time: what happens when, in order."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda:
    """Calls to be made at given times; equal times keep the order in which they were noted."""

    __slots__ = ("_entries", "_noted", "_running", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        """Virtual seconds; 0 is the first arrival."""
        self._entries: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._noted = 0
        self._running = False

    def at(self, at_s: float, call: Callable[..., None], *args: object) -> None:
        """Note ``call(*args)`` for ``at_s``, which must not lie in the past."""
        self._noted += 1
        heappush(self._entries, (at_s, self._noted, call, args))

    def after(self, delay_s: float, call: Callable[..., None], *args: object) -> None:
        """Note ``call(*args)`` for ``delay_s`` from now."""
        self._noted += 1
        heappush(self._entries, (self.now_s + delay_s, self._noted, call, args))

    def stop(self) -> None:
        """Make no further call; :meth:`run` returns."""
        self._running = False

    def run(self) -> None:
        """Make the calls in order until :meth:`stop` is called.

        Raises:
            IndexError: Nothing is noted any more and nobody has called it.
        """
        entries = self._entries
        self._running = True
        while self._running:
            self.now_s, _, call, args = heappop(entries)
            call(*args)
