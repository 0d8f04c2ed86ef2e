"""Reading a stream of server-sent events, as the HTML standard says.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6. Lines end
with LF, CRLF or CR; a blank line ends an event; one space after ``data:`` is no data; lines that
start with a colon are comments; an event that the stream's end cuts off is dropped.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Cuts one stream into the data of its events; how the bytes are split does not matter."""

    __slots__ = ("_after_cr", "_data", "_fresh", "_line", "_started")

    def __init__(self) -> None:
        self._fresh = True
        """At the start of an event: nothing of it was read."""
        self._started = False
        self._after_cr = False
        """The last byte was a CR, so a LF that follows belongs to the same line end."""
        self._line = bytearray()
        self._data: list[bytes] = []

    def feed(self, read: bytes) -> list[bytes]:
        """Take what was read; return the data of each event that it completes."""
        # What engines send, nearly always: exactly one whole event in one read.
        if (
            self._fresh
            and read.startswith(b"data: ")
            and read.find(b"\n") == len(read) - 2
            and read.endswith(b"\n\n")
            and b"\r" not in read
        ):
            self._started = True
            return [read[6:-2]]
        return self._feed_lines(read)

    def _feed_lines(self, read: bytes) -> list[bytes]:
        if self._after_cr and read.startswith(b"\n"):
            read = read[1:]
            self._after_cr = False
        if not read:
            return []
        self._after_cr = read.endswith(b"\r")
        events: list[bytes] = []
        first, *others = _LINE_END.split(read)
        self._line += first
        for following in others:
            self._end_line(bytes(self._line), events)
            self._line = bytearray(following)
        self._fresh = not (self._line or self._data or self._after_cr)
        return events

    def _end_line(self, line: bytes, events: list[bytes]) -> None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
