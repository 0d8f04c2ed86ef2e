"""Response heads, held to the same rules as requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import StrEnum

from router.http1.errors import ProtocolError
from router.http1.fields import (
    Framing,
    check_lines,
    find_field,
    has_token,
    special,
    without,
    without_named,
)

MAX_FIELDS = 200

_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*+))?\r\n")

_DROPPED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"content-length",
        b"upgrade",
    }
)

_SPECIAL = special(b"content-type", b"x-request-id", *sorted(_DROPPED))


class BodyKind(StrEnum):
    """How the end of a response's body is known."""

    NONE = "none"
    """There is none, whatever length is declared."""
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    """The connection's end is the body's end."""


@dataclass(slots=True, frozen=True)
class ResponseHead:
    """A valid response head."""

    status: int
    reason: bytes
    lines: bytes
    """The end-to-end fields as they came, less Content-Length; each begins with CRLF."""
    body: BodyKind
    length: int | None
    """The declared length, also where no body follows (HEAD, 304)."""
    keep_alive: bool
    event_stream: bool
    """Whether the body is a stream of server-sent events."""
    has_request_id: bool

    def field(self, name: bytes) -> bytes | None:
        """The value of an end-to-end field; None when it is missing."""
        return find_field(self.lines, name)

    @property
    def coded(self) -> bool:
        """Whether the body cannot be read as it comes, for it is compressed."""
        return self.field(b"content-encoding") not in {None, b"identity"}

    @property
    def retry_after_s(self) -> float | None:
        """Retry-After in seconds; None when it is missing or no time.

        A date is taken against the answer's own ``Date``: that needs no clock, nor that the
        replica's agrees with ours.
        """
        value = self.field(b"retry-after")
        if value is None:
            return None
        if value.isdigit():
            return float(value)
        at_s, sent_s = _date_s(value), _date_s(self.field(b"date") or b"")
        return None if at_s is None or sent_s is None else max(at_s - sent_s, 0.0)


def _date_s(value: bytes) -> float | None:
    """A date in one of HTTP's three forms, which are all in UTC, as seconds of the epoch."""
    parts = parsedate_tz(value.decode("latin-1"))
    if parts is None:
        return None
    try:
        return float(mktime_tz((*parts[:9], parts[9] or 0)))
    except (ValueError, OverflowError):
        return None


def parse_response_head(block: bytes, method: bytes) -> ResponseHead:
    """Parse a head that ends with an empty line; ``method`` is that of the request.

    Raises:
        ProtocolError: It is malformed or ambiguous.
    """
    line = _LINE.match(block)
    if line is None:
        msg = "The status line is malformed."
        raise ProtocolError(msg, 502)
    minor, status = int(line[1]), int(line[2])
    lines = block[line.end() - 2 : -4]
    check_lines(lines, MAX_FIELDS)
    framing = Framing()
    spans: list[tuple[int, int]] = []
    connection, event_stream, has_request_id = b"", False, False
    for match in _SPECIAL.finditer(lines):
        name, value = match[1].lower(), match[2].rstrip(b" \t")
        if name == b"content-type":
            event_stream = value.lower().startswith(b"text/event-stream")
        elif name == b"x-request-id":
            has_request_id = True
        elif name == b"content-length":
            framing.saw_content_length(value)
        elif name == b"transfer-encoding":
            framing.saw_transfer_encoding(value, minor)
        elif name == b"connection":
            connection = connection + b"," + value if connection else value
        if name in _DROPPED:
            spans.append(match.span())
    framing.check()
    kept = without(lines, spans)
    body = _body_kind(method, status, framing)
    return ResponseHead(
        status=status,
        reason=line[3] or b"",
        lines=without_named(kept, connection) if connection else kept,
        body=body,
        length=framing.length,
        keep_alive=body is not BodyKind.CLOSE and _keep_alive(connection, minor),
        event_stream=event_stream,
        has_request_id=has_request_id,
    )


def _body_kind(method: bytes, status: int, framing: Framing) -> BodyKind:
    if method == b"HEAD" or status < 200 or status in {204, 304}:
        return BodyKind.NONE
    if framing.chunked:
        return BodyKind.CHUNKED
    if framing.length is None:
        return BodyKind.CLOSE
    return BodyKind.LENGTH


def _keep_alive(connection: bytes, minor: int) -> bool:
    if not connection:
        return minor == 1
    if has_token(connection, b"close"):
        return False
    return minor == 1 or has_token(connection, b"keep-alive")
