"""The field lines (headers) of a head: grammar and framing, for both directions.

A head is validated as one block of bytes by one regular expression and never taken apart: what is
forwarded are slices of the block as it came. Only fields that mean something to a proxy are looked
at. The grammar is RFC 9110 §5 without its leniencies: no line folding, no bare CR or LF, no space
before the colon, no control bytes; bytes from 0x80 are allowed in values (obs-text).
"""

from __future__ import annotations

import re
from functools import lru_cache

from router.http1.errors import ProtocolError

HEAD_END = b"\r\n\r\n"

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]"

_LINES = re.compile(rb"(?:\r\n" + TOKEN + rb"++:" + VALUE + rb"*+)*+")
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
_UNFINISHED_BAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")

END_TO_END = frozenset(
    {b"host", b"x-request-id", b"x-forwarded-proto", b"expect", b"content-length", b"via"}
)
"""Fields that ``Connection`` cannot name away: without them the message would mean another."""


def special(*names: bytes) -> re.Pattern[bytes]:
    """A pattern that finds the named fields in a block of lines; groups: name, value."""
    alternatives = b"|".join(re.escape(name) for name in names)
    return re.compile(rb"(?i)\r\n(" + alternatives + rb"):[ \t]*+([^\r\n]*+)")


@lru_cache(maxsize=64)
def _field(name: bytes) -> re.Pattern[bytes]:
    return special(name)


def find_field(lines: bytes, name: bytes) -> bytes | None:
    """The value of the first field called ``name``; None when there is none."""
    match = _field(name).search(lines)
    return match[2].rstrip(b" \t") if match else None


def check_unfinished(head: bytes, start: int = 0) -> None:
    """Refuse early what no further byte can mend, so that it does not wait for a time-out.

    Args:
        head: What came of a head.
        start: Where to begin; all before it was checked.

    Raises:
        ProtocolError: The head holds a control byte, or a CR or LF of its own.
    """
    if _UNFINISHED_BAD.search(head, max(0, start - 1)):
        msg = "The message head holds a control byte or a bare CR or LF."
        raise ProtocolError(msg)


def check_lines(lines: bytes, max_fields: int) -> None:
    """Validate a block of field lines; each begins with CRLF, none ends with it.

    Raises:
        ProtocolError: There are too many (431), or one breaks the grammar.
    """
    if lines.count(b"\r\n") > max_fields:
        msg = f"The message has more than {max_fields} header fields."
        raise ProtocolError(msg, 431)
    if not _LINES.fullmatch(lines):
        msg = (
            "A header field is malformed: bad name, space before the colon, folding, control byte."
        )
        raise ProtocolError(msg)


def without(lines: bytes, spans: list[tuple[int, int]]) -> bytes:
    """``lines`` less the given spans, which are in order."""
    if not spans:
        return lines
    pieces, at = [], 0
    for start, end in spans:
        pieces.append(lines[at:start])
        at = end
    pieces.append(lines[at:])
    return b"".join(pieces)


def without_field(lines: bytes, name: bytes) -> bytes:
    """``lines`` less all fields called ``name``."""
    return without(lines, [match.span() for match in _field(name).finditer(lines)])


def without_named(lines: bytes, connection: bytes) -> bytes:
    """``lines`` less the fields that the ``Connection`` value names (RFC 9110 §7.6.1)."""
    for token in connection.lower().split(b","):
        name = token.strip(b" \t")
        if name not in {b"close", b"keep-alive", b""} and name not in END_TO_END:
            lines = without_field(lines, name)
    return lines


def has_token(value: bytes, token: bytes) -> bool:
    """Whether a comma-separated value holds ``token``, in any case."""
    return any(part.strip(b" \t") == token for part in value.lower().split(b","))


def content_length(value: bytes) -> int:
    """The value of a Content-Length field.

    Raises:
        ProtocolError: It is not a plain decimal number of at most 18 digits.
    """
    if not _CONTENT_LENGTH.fullmatch(value):
        msg = "Content-Length is not a plain number."
        raise ProtocolError(msg)
    return int(value)


class Framing:
    """Collects the framing fields of one message and judges them together."""

    __slots__ = ("chunked", "length")

    def __init__(self) -> None:
        self.length: int | None = None
        self.chunked = False

    def saw_content_length(self, value: bytes) -> None:
        """A Content-Length field was met."""
        if self.length is not None:
            msg = "Content-Length is given more than once."
            raise ProtocolError(msg)
        self.length = content_length(value)

    def saw_transfer_encoding(self, value: bytes, minor: int) -> None:
        """A Transfer-Encoding field was met in an HTTP/1.``minor`` message."""
        if minor == 0:
            msg = "Transfer-Encoding is not known in HTTP/1.0."
            raise ProtocolError(msg)
        if self.chunked or value.lower() != b"chunked":
            msg = "Transfer-Encoding is not exactly `chunked`."
            raise ProtocolError(msg)
        self.chunked = True

    def check(self) -> None:
        """All fields were met.

        Raises:
            ProtocolError: Both framings are announced.
        """
        if self.chunked and self.length is not None:
            msg = "Both Content-Length and Transfer-Encoding are given."
            raise ProtocolError(msg)
