"""The messages of one replica in their order: numbers, gaps, restarts. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.kv_events.counters import Counters
from router.kv_events.wire import MalformedEventsError, decode_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.kv_events.tracker import Tracker

_NUMBER_BYTES = 8


class EventStream:
    """Takes messages as they come and tells the tracker what they say, or that some are missing.

    Args:
        tracker: Who follows the replica's cache.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.counters = Counters()
        self._last: int | None = None

    def take(self, frames: Sequence[bytes]) -> None:
        """Take one message: topic, number, batch."""
        self.counters.messages += 1
        try:
            number, payload = _parts(frames)
            self._follow(number)
            events = decode_batch(payload)
        except MalformedEventsError:
            self.counters.malformed += 1
            self.tracker.lost()
            return
        self.counters.events += len(events)
        self.tracker.take(events)

    def _follow(self, number: int) -> None:
        last, self._last = self._last, number
        if last is None or number == last + 1:
            return
        if number > last:
            self.counters.gaps += 1
            self.counters.missed += number - last - 1
            self.tracker.lost()
        else:
            self.counters.restarts += 1
            self.tracker.cleared()


def _parts(frames: Sequence[bytes]) -> tuple[int, bytes]:
    if len(frames) != 3 or len(frames[1]) != _NUMBER_BYTES:
        msg = "no topic, number of 8 bytes and batch"
        raise MalformedEventsError(msg)
    return int.from_bytes(frames[1], "big"), frames[2]
