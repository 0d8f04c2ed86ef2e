"""Stop strings that begin before a seam and end behind it.

An engine that goes on with an answer searches what it writes for stop strings, and not what was
written elsewhere. So the text just behind the seam is looked at here, and held back as long as it
could be the rest of a stop string.
"""

from __future__ import annotations

from typing import NamedTuple


class Crossing(NamedTuple):
    """What may be told of the text behind the seam."""

    text: str
    """Text that may be passed on by now."""

    stop: str | None
    """The stop string that is complete: the answer ends after :attr:`text`."""


class Seam:
    """The text behind a seam, until no stop string can cross it any more.

    Args:
        before: The answer before the seam.
        stops: The stop strings.
        keeps_stop: Whether the stop string is part of the answer.
    """

    __slots__ = ("_before", "_held", "_keeps_stop", "_open", "_stops")

    def __init__(self, before: str, stops: tuple[str, ...], *, keeps_stop: bool) -> None:
        longest = max(map(len, stops), default=0)
        self._before = before[max(0, len(before) - longest + 1) :]
        self._stops = stops
        self._keeps_stop = keeps_stop
        self._held = ""
        self._open = bool(stops and self._before)

    @property
    def held(self) -> bool:
        """Whether there is text that waits for more."""
        return bool(self._held)

    def cross(self, text: str, *, last: bool = False) -> Crossing:
        """Take the next text behind the seam.

        Args:
            text: As the engine wrote it.
            last: Whether nothing comes after it.
        """
        if not self._open:
            return Crossing(text, None)
        self._held += text
        start = len(self._before)
        whole = self._before + self._held
        found = [
            (at + len(stop), at, stop)
            for stop in self._stops
            if 0 <= (at := whole.find(stop)) < start
        ]
        if found:
            end, at, stop = min(found)
            return self._release(max(0, (end if self._keeps_stop else at) - start), stop)
        if last or not self._may_cross(whole):
            return self._release(len(self._held), None)
        return Crossing("", None)

    def _may_cross(self, whole: str) -> bool:
        """Whether a stop string may have begun before the seam and go on behind the text."""
        return any(
            stop.startswith(whole[at:]) for at in range(len(self._before)) for stop in self._stops
        )

    def _release(self, count: int, stop: str | None) -> Crossing:
        text, self._held, self._open = self._held[:count], "", False
        return Crossing(text, stop)
