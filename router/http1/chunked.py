"""Chunked bodies: where they end, and what they hold.

The relay forwards the bytes of a chunked response as they came; it only has to know where the
message ends, to the byte. So :meth:`ChunkedBody.scan` walks over the framing without copying
anything. One read that holds exactly one chunk, the common case of a token stream, is known by its
length: only one size line can stand at its beginning (:func:`whole_chunks`).
"""

from __future__ import annotations

import re

from router.http1.errors import ProtocolError
from router.http1.fields import TOKEN, VALUE

_CRLF = b"\r\n"
_EXTENSION = rb";" + TOKEN + rb"++(?:=(?:" + TOKEN + rb'++|"[^"\\\x00-\x08\x0a-\x1f\x7f]*+"))?'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*+")
_UNFINISHED_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;" + VALUE + rb"*+)?")
_TRAILER_LINE = re.compile(TOKEN + rb"++:" + VALUE + rb"*+")
_MAX_SIZE_LINE_BYTES = 1024
_MAX_TRAILER_BYTES = 8192

LAST_CHUNK = b"0\r\n\r\n"
LONGEST_WHOLE_CHUNK_BYTES = 4102
"""Of the reads that :func:`whole_chunks` knows, the longest: a size line of three digits."""
LAST_TWO = slice(-2, None)

_SIZE_LINES = [b"%x\r\n" % size for size in range(LONGEST_WHOLE_CHUNK_BYTES + 1)]
"""Made once: formatting one takes as long as everything else that is done for a token."""


def as_chunk(data: bytes) -> bytes:
    """``data``, of one byte at least, as one chunk."""
    size = len(data)
    line = _SIZE_LINES[size] if size <= LONGEST_WHOLE_CHUNK_BYTES else b"%x\r\n" % size
    return line + data + _CRLF


def whole_chunks(begin: bytes = b"") -> list[tuple[slice, tuple[bytes, ...]]]:
    """How a read must begin if it is one whole chunk, without extensions, that holds ``begin``.

    The n-th entry is for a read of n bytes: which part of the read to look at, and what it must be
    one of (the size's digits may be of either case; none at all where no chunk has that length).
    When the last two bytes are CRLF as well, the read is one chunk, whole.
    """
    table: list[tuple[slice, tuple[bytes, ...]]] = []
    for length in range(LONGEST_WHOLE_CHUNK_BYTES + 1):
        for digits in range(1, 4):
            size = length - digits - 4
            if size >= max(1, len(begin)) and len(b"%x" % size) == digits:
                lines = dict.fromkeys((b"%x\r\n" % size, b"%X\r\n" % size))
                wanted = tuple(line + begin for line in lines)
                table.append((slice(len(wanted[0])), wanted))
                break
        else:
            table.append((slice(0), ()))
    return table


def whole_chunk_insides() -> list[slice]:
    """What a read that :func:`whole_chunks` knows as one chunk holds between its framing.

    The n-th entry is for a read of n bytes.
    """
    return [slice(wanted.stop, -2) for wanted, _ in whole_chunks()]


_WHOLE_CHUNKS = whole_chunks()

# Plain numbers: looking up an enum's member costs more than the rest of the common case.
_SIZE, _DATA, _DATA_END, _TRAILER, _ENDED = range(5)


class ChunkedBody:
    """The framing of one chunked body, fed in any pieces."""

    __slots__ = ("_left", "_line", "_phase", "_trailer_bytes", "at_boundary")

    def __init__(self) -> None:
        self.at_boundary = True
        """Whether the next byte begins a new chunk."""
        self._phase = _SIZE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0

    @property
    def announced(self) -> int:
        """Bytes of the chunk that has begun which are still to come."""
        return self._left

    @property
    def ended(self) -> bool:
        """Whether the last chunk and the trailer were seen."""
        return self._phase == _ENDED

    def scan(self, data: bytes) -> int:
        """Walk over ``data``; returns where the message ends in it, or -1 if it does not.

        Raises:
            ProtocolError: The framing is malformed.
        """
        if self.at_boundary and len(data) <= LONGEST_WHOLE_CHUNK_BYTES:
            beginning, wanted = _WHOLE_CHUNKS[len(data)]
            if data[beginning] in wanted and data[LAST_TWO] == _CRLF:
                return -1
        return self._walk(data, None)

    def decode(self, data: bytes, pieces: list[bytes]) -> int:
        """As :meth:`scan`, and append what the chunks hold to ``pieces``."""
        return self._walk(data, pieces)

    def _walk(self, data: bytes, pieces: list[bytes] | None) -> int:
        at, end = 0, len(data)
        while at < end:
            if self._phase == _DATA:
                stop = min(at + self._left, end)
                if pieces is not None:
                    pieces.append(data[at:stop])
                self._left -= stop - at
                at = stop
                if not self._left:
                    self._phase = _DATA_END
                continue
            line, at = self._take_line(data, at)
            if line is not None:
                self._line_done(line)
                if self._phase == _ENDED:
                    break
        self.at_boundary = self._phase == _SIZE and not self._line
        return at if self._phase == _ENDED else -1

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The line that ends next, without its CRLF; None, and kept, if it does not end here."""
        newline = data.find(b"\n", at)
        if newline < 0:
            self._line += data[at:]
            self._check_unfinished()
            return None, len(data)
        line = self._line + data[at : newline + 1]
        self._line = b""
        if not line.endswith(_CRLF):
            msg = "A chunk line ends with a bare LF."
            raise ProtocolError(msg)
        return line[:-2], newline + 1

    def _check_unfinished(self) -> None:
        """Bound what is kept of a line, and refuse at once what cannot become one."""
        line = self._line
        too_long = len(line) > (
            _MAX_TRAILER_BYTES if self._phase == _TRAILER else _MAX_SIZE_LINE_BYTES
        )
        body = line.removesuffix(b"\r")
        if self._phase == _DATA_END:
            bad = bool(body)
        elif self._phase == _SIZE:
            bad = bool(body) and not _UNFINISHED_SIZE_LINE.fullmatch(body)
        else:
            bad = b"\r" in body
        if too_long or bad:
            msg = "The chunked framing is malformed."
            raise ProtocolError(msg)

    def _line_done(self, line: bytes) -> None:
        if self._phase == _SIZE:
            self._size_line(line)
        elif self._phase == _DATA_END:
            if line:
                msg = "A chunk is longer than its size says."
                raise ProtocolError(msg)
            self._phase = _SIZE
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER_LINE.fullmatch(line):
                msg = "A trailer field is malformed or too long."
                raise ProtocolError(msg)
        else:
            self._phase = _ENDED

    def _size_line(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(line) > _MAX_SIZE_LINE_BYTES:
            msg = "A chunk size is malformed."
            raise ProtocolError(msg)
        self._left = int(match[1], 16)
        self._phase = _DATA if self._left else _TRAILER
