"""Request heads."""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.http1.errors import ProtocolError
from router.http1.fields import (
    TOKEN,
    Framing,
    check_lines,
    find_field,
    has_token,
    special,
    without,
    without_named,
)

MAX_FIELDS = 100

_LINE = re.compile(rb"(" + TOKEN + rb"++) ([!-~\x80-\xff]++) HTTP/1\.([01])\r\n")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[0-9A-Za-z\-._~!$&'()*+,;=%]*+)(?::[0-9]*+)?")
_ABSOLUTE = re.compile(rb"(?i)https?://([^/?#]*+)(.*)", re.DOTALL)

_DROPPED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"content-length",
        b"upgrade",
        b"http2-settings",
        b"expect",
        b"x-forwarded-for",
    }
)
"""Hop-by-hop fields, and those that the proxy writes anew."""

_SPECIAL = special(b"host", b"x-request-id", b"x-forwarded-proto", *sorted(_DROPPED))


@dataclass(slots=True, frozen=True)
class RequestHead:
    """A valid request head."""

    method: bytes
    target: bytes
    """Origin-form, raw; ``*`` for OPTIONS."""
    minor: int
    """0 or 1, of HTTP/1.x."""
    lines: bytes
    """The end-to-end fields as they came; each begins with CRLF."""
    keep_alive: bool
    length: int | None
    """Declared length of the body; None when chunked or none was declared."""
    chunked: bool
    expects_continue: bool
    request_id: bytes | None
    forwarded_for: bytes | None
    forwarded_proto: bytes | None

    def field(self, name: bytes) -> bytes | None:
        """The value of an end-to-end field; None when it is missing."""
        return find_field(self.lines, name)


def parse_request_head(block: bytes) -> RequestHead:
    """Parse a head that ends with an empty line.

    Raises:
        ProtocolError: It is malformed or ambiguous, or asks for what is not served.
    """
    line = _LINE.match(block)
    if line is None:
        msg = "The request line is malformed, or its version is not HTTP/1.0 or HTTP/1.1."
        raise ProtocolError(msg)
    method, target, minor = line[1], line[2], int(line[3])
    lines = block[line.end() - 2 : -4]
    check_lines(lines, MAX_FIELDS)
    if method == b"CONNECT":
        msg = "CONNECT is not served."
        raise ProtocolError(msg, 501)
    found = _collect(lines, minor)
    _check_upgrade(found)
    hosts = found.seen.get(b"host")
    return RequestHead(
        method=method,
        target=_origin_form(method, target, _checked_host(hosts, minor)),
        minor=minor,
        lines=_end_to_end(lines, found),
        keep_alive=_keep_alive(found.connection, minor),
        length=found.framing.length,
        chunked=found.framing.chunked,
        expects_continue=_expects_continue(found, minor),
        request_id=_first(found, b"x-request-id"),
        forwarded_for=_joined(found, b"x-forwarded-for"),
        forwarded_proto=_first(found, b"x-forwarded-proto"),
    )


@dataclass(slots=True)
class _Found:
    seen: dict[bytes, list[bytes]]
    spans: list[tuple[int, int]]
    framing: Framing

    @property
    def connection(self) -> bytes:
        return b",".join(self.seen.get(b"connection", ()))


def _collect(lines: bytes, minor: int) -> _Found:
    seen: dict[bytes, list[bytes]] = {}
    spans: list[tuple[int, int]] = []
    framing = Framing()
    for match in _SPECIAL.finditer(lines):
        name, value = match[1].lower(), match[2].rstrip(b" \t")
        if name == b"content-length":
            framing.saw_content_length(value)
        elif name == b"transfer-encoding":
            framing.saw_transfer_encoding(value, minor)
        seen.setdefault(name, []).append(value)
        if name in _DROPPED:
            spans.append(match.span())
    framing.check()
    return _Found(seen, spans, framing)


def _end_to_end(lines: bytes, found: _Found) -> bytes:
    kept = without(lines, found.spans)
    return without_named(kept, found.connection) if b"connection" in found.seen else kept


def _checked_host(hosts: list[bytes] | None, minor: int) -> bytes | None:
    if hosts is None:
        if minor == 0:
            return None
        msg = "Host is missing."
        raise ProtocolError(msg)
    if len(hosts) > 1:
        msg = "Host is given more than once."
        raise ProtocolError(msg)
    if not _HOST.fullmatch(hosts[0]):
        msg = "Host is malformed."
        raise ProtocolError(msg)
    return hosts[0]


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1] or not _HOST.fullmatch(absolute[1]):
        msg = "The request target is neither a path nor an http URL."
        raise ProtocolError(msg)
    if host is not None and host.lower() != absolute[1].lower():
        msg = "The request target names another host than Host does."
        raise ProtocolError(msg)
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def _keep_alive(connection: bytes, minor: int) -> bool:
    if not connection:
        return minor == 1
    if has_token(connection, b"close"):
        return False
    return minor == 1 or has_token(connection, b"keep-alive")


def _check_upgrade(found: _Found) -> None:
    """Ignore an offer of h2c, refuse any other change of protocol."""
    if b"upgrade" not in found.seen or not has_token(found.connection, b"upgrade"):
        return
    if not has_token(b",".join(found.seen[b"upgrade"]), b"h2c"):
        msg = "Upgrading to another protocol is not supported."
        raise ProtocolError(msg)


def _expects_continue(found: _Found, minor: int) -> bool:
    expected = found.seen.get(b"expect")
    if expected is None or minor == 0:
        return False
    if len(expected) > 1 or expected[0].lower() != b"100-continue":
        msg = "Only the expectation `100-continue` is known."
        raise ProtocolError(msg, 417)
    return True


def _first(found: _Found, name: bytes) -> bytes | None:
    values = found.seen.get(name)
    return values[0] if values else None


def _joined(found: _Found, name: bytes) -> bytes | None:
    values = found.seen.get(name)
    return b", ".join(values) if values else None
