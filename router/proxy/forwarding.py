"""Heads as they go on: a request's to a replica, an answer's to the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.http1.fields import HEAD_END, without_field

if TYPE_CHECKING:
    from router.http1.response import ResponseHead
    from router.proxy.heads import KnownRequest


def forwarded_head(
    known: KnownRequest,
    body_bytes: int,
    request_id: bytes,
    address: bytes,
    replica_url: str,
    *,
    target: bytes | None = None,
    own_id: bytes | None = None,
) -> bytes:
    """The client's head, with the fields that differ from request to request.

    Args:
        known: The client's head.
        body_bytes: How long the body is that goes along; a chunked one goes with its length.
        request_id: Given to a request that brought none.
        address: The client's IP address; empty when it has none.
        replica_url: Where it goes; the host for a client of HTTP/1.0 that named none.
        target: What is asked for in place of what the client asked for.
        own_id: An id that takes the place of the client's.
    """
    head = known.head
    lines = known.wire
    if target is not None:
        lines = b"%b %b%b" % (head.method, target, lines[lines.index(b" HTTP/1.1") :])
    if body_bytes or head.chunked or head.length is not None:
        lines = b"%b\r\nContent-Length: %d" % (lines, body_bytes)
    if own_id is not None:
        lines = b"%b\r\nX-Request-Id: %b" % (without_field(lines, b"x-request-id"), own_id)
    elif head.request_id is None:
        lines = b"%b\r\nX-Request-Id: %b" % (lines, request_id)
    forwarded_for = address
    if head.forwarded_for:
        forwarded_for = b"%b, %b" % (head.forwarded_for, address or b"unknown")
    if forwarded_for:
        lines = b"%b\r\nX-Forwarded-For: %b" % (lines, forwarded_for)
    if head.minor == 0 and head.field(b"host") is None:
        authority = replica_url.partition("://")[2].encode()
        lines = b"%b\r\nHost: %b" % (lines, authority)
    return lines + HEAD_END


def answer_head(
    head: ResponseHead, framing: bytes, replica: str, request_id: bytes, connection: bytes
) -> bytes:
    """A replica's head, with the fields that are the router's.

    Args:
        head: The replica's.
        framing: Fields that tell the client how the body is framed.
        replica: Its name.
        request_id: Given to an answer that has none.
        connection: Fields about the client's connection.
    """
    return b"HTTP/1.1 %d %b%b%b\r\nx-pointsman-replica: %b%b%b\r\n\r\n" % (
        head.status,
        head.reason,
        head.lines,
        framing,
        replica.encode(),
        b"" if head.has_request_id else b"\r\nx-request-id: " + request_id,
        connection,
    )
