"""One connection to a replica: a request goes out, and its response is followed to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from router.core.request import Failure
from router.http1.body import Body, LengthBody, UntilClose
from router.http1.chunked import (
    LAST_TWO,
    LONGEST_WHOLE_CHUNK_BYTES,
    ChunkedBody,
    whole_chunks,
)
from router.http1.errors import ProtocolError
from router.http1.fields import HEAD_END, check_unfinished
from router.http1.response import BodyKind, ResponseHead
from router.proxy.last_words import leftovers, second_handle
from router.proxy.relay import EVENT

if TYPE_CHECKING:
    import socket

    from router.core.replica import Replica
    from router.core.request import Attempt
    from router.proxy.pool import UpstreamPool
    from router.proxy.recipient import Recipient
    from router.proxy.relay import Relay

MAX_HEAD_BYTES = 64 * 1024
MAX_INTERIM_ANSWERS = 16
WRITE_AT_ONCE_BYTES = 256 * 1024
"""A longer body is written piece by piece, so that an early answer can end the upload."""

# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_LENGTH, _NONE = BodyKind.LENGTH, BodyKind.NONE
_CRLF = b"\r\n"
_WHOLE_EVENTS = whole_chunks(EVENT)


class UpstreamConnection(asyncio.Protocol):
    """One connection to a replica; carries one exchange at a time."""

    __slots__ = (
        "_attempt",
        "_body",
        "_buffer",
        "_direct",
        "_eof",
        "_interim",
        "_keep_alive",
        "_outbox",
        "_paused",
        "_pool",
        "_received",
        "_recipient",
        "_relay",
        "_requests",
        "_spare",
        "idle_since_s",
        "replica",
        "transport",
    )

    def __init__(self, pool: UpstreamPool, replica: Replica) -> None:
        self._pool = pool
        self.replica = replica
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.idle_since_s = 0.0
        self._recipient: Recipient | None = None
        self._attempt: Attempt | None = None
        self._requests = 0
        self._outbox: memoryview | None = None
        self._spare: socket.socket | None = None
        self._eof = False
        self._paused = False
        self._keep_alive = True
        self._buffer = b""
        self._body: Body | None = None
        self._relay: Relay | None = None
        self._direct: Relay | None = None
        """The relay, as long as a whole chunk can be written past it."""
        self._received = False
        self._interim = 0

    # -- used by the data plane ---------------------------------------------------------------

    def send(self, recipient: Recipient, attempt: Attempt) -> None:
        """Send the recipient's request; from now on the response is the recipient's."""
        self._recipient = recipient
        self._attempt = attempt
        self._requests += 1
        head, body = recipient.request_bytes(self)
        if len(body) <= WRITE_AT_ONCE_BYTES:
            self.transport.write(head + body)
        else:
            self._spare = second_handle(self.transport)
            self.transport.write(head)
            self._outbox = memoryview(body)
            self._write_more()

    def fail(self, failure: Failure) -> None:
        """Drop the connection, and with it the attempt, which failed."""
        recipient, attempt, at_boundary = self._recipient, self._attempt, self.at_boundary
        self.abort()
        if recipient is not None and attempt is not None:
            recipient.attempt_failed(attempt, failure, at_boundary=at_boundary)

    def abort(self) -> None:
        """Drop the connection at once; the recipient hears nothing more."""
        self._recipient = self._attempt = self._outbox = self._relay = self._direct = None
        self._drop_spare()
        self.transport.abort()

    def redirect(self, relay: Relay) -> None:
        """The rest of the response goes another way."""
        self._relay = relay

    def pause(self) -> None:
        """Stop reading: the client is slower than the replica."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    @property
    def at_boundary(self) -> bool:
        """Whether the framing of what came allows one more piece."""
        return self._body is not None and self._body.at_boundary

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self.transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came; what belongs to the response is relayed at once."""
        relay, length = self._direct, len(data)
        # The life of a stream: everything is done here, since a call costs as much as all of it.
        if relay is not None and length <= LONGEST_WHOLE_CHUNK_BYTES:
            beginning, wanted = _WHOLE_EVENTS[length]
            if data[beginning] in wanted and data[LAST_TWO] == _CRLF:
                write = relay.write
                write(data)
                relay.sent_bytes += length
                tokens = relay.tokens + 1
                if length >= relay.single_below_bytes or tokens >= relay.tell_at:
                    tokens += relay.count(data) - 1
                relay.tokens = tokens
                if tokens >= relay.tell_at:
                    relay.tell_progress()
                return
        self._read(data)

    def eof_received(self) -> None:
        """The replica closed its side; the transport closes ours."""
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; what that means depends on how far the response was."""
        self._pool.closed(self)
        self._hear_last_words()
        recipient, attempt = self._recipient, self._attempt
        if recipient is None or attempt is None:
            return
        if self._eof and exc is None and isinstance(self._body, UntilClose):
            self._recipient = self._attempt = None
            recipient.response_ended()
        elif self._requests > 1 and not self._received:
            # The replica closed an idle connection just as the request was written.
            self._recipient = self._attempt = self._outbox = None
            self._pool.send_fresh(recipient, attempt)
        else:
            self.fail(Failure.RESET)

    def pause_writing(self) -> None:
        """The socket is full; what is left of a long body waits for :meth:`resume_writing`."""

    def resume_writing(self) -> None:
        """The socket took what it was given."""
        self._write_more()

    # -- inside -------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        recipient, body, relay = self._recipient, self._body, self._relay
        if recipient is None:
            self.transport.abort()  # bytes that answer no request: never for the next one
            return
        try:
            if body is None or relay is None:
                self._head_data(recipient, data)
                if self._relay is not None:
                    self._relay.flush()
                return
            end = body.scan(data)
            if end < 0:
                self._direct = relay if relay.direct and body.at_boundary else None
                relay.take(data)
            else:
                self._finish(recipient, relay, data, end)
        except ProtocolError:
            self.fail(Failure.PROTOCOL)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _hear_last_words(self) -> None:
        """Read the answer that the replica may have given before it reset the connection."""
        spare, self._spare = self._spare, None
        if spare is None:
            return
        with spare:
            if self._recipient is not None and not self._received:
                self._eof = True
                for data in leftovers(spare, MAX_HEAD_BYTES):
                    self.data_received(data)

    def _write_more(self) -> None:
        while self._outbox is not None and not self.transport.get_write_buffer_size():
            piece, rest = self._outbox[:WRITE_AT_ONCE_BYTES], self._outbox[WRITE_AT_ONCE_BYTES:]
            self._outbox = rest if len(rest) else None
            self.transport.write(piece)

    def _head_data(self, recipient: Recipient, data: bytes) -> None:
        self._received = True
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while data:
            end = data.find(HEAD_END, 0, MAX_HEAD_BYTES)
            if end < 0:
                self._wait_for_head(data)
                return
            head, length = self._pool.heads.read(data[: end + 4], recipient.method)
            data = data[end + 4 :]
            if head.status >= 200:
                self._begin(recipient, head, length, data)
                return
            self._interim += 1
            if head.status == 101 or self._interim > MAX_INTERIM_ANSWERS:
                msg = "The replica switched protocols, or sent interim answers without end."
                raise ProtocolError(msg, 502)

    def _wait_for_head(self, data: bytes) -> None:
        check_unfinished(data)
        if len(data) >= MAX_HEAD_BYTES:
            msg = "The response head is too long."
            raise ProtocolError(msg, 502)
        self._buffer = data

    def _begin(
        self, recipient: Recipient, head: ResponseHead, length: int | None, data: bytes
    ) -> None:
        self._keep_alive = head.keep_alive
        if head.status >= 400:
            self._outbox = None  # refused early: the rest of the body is of no use
        if self.transport.get_write_buffer_size():
            self._keep_alive = False
        relay = self._relay = recipient.response_began(head, length)
        kind = head.body
        if relay is None:
            self._drop(whole=kind is _NONE or length == len(data))
            return
        if kind is _NONE or length == 0:
            self._finish(recipient, relay, data, 0)
        elif kind is _LENGTH and length == len(data):
            relay.tell_at = 1  # of an answer in one piece, its end tells enough
            self._finish(recipient, relay, data, length)
        else:
            body = self._body = _body(kind, length)
            end = body.scan(data)
            if end >= 0:
                self._finish(recipient, relay, data, end)
                return
            self._direct = relay if relay.direct and body.at_boundary else None
            if data:
                relay.take(data)

    def _finish(self, recipient: Recipient, relay: Relay, data: bytes, end: int) -> None:
        """The response ends at ``end`` in ``data``; what comes after it belongs to nobody."""
        if end:
            relay.last = data
            relay.take(data[:end] if end < len(data) else data)
            if self._recipient is not recipient:
                return  # inside of the stream it was said that it is over
        reusable = self._keep_alive and end == len(data) and self._outbox is None and not self._eof
        self._part(reusable=reusable)
        recipient.response_ended()

    def _drop(self, *, whole: bool) -> None:
        """Nobody wants the response; if it has come ``whole``, the connection can live on."""
        if whole and self._keep_alive and self._outbox is None and not self._eof:
            self._part(reusable=True)
        else:
            self.abort()

    def _part(self, *, reusable: bool) -> None:
        """The exchange is over."""
        self._recipient = self._attempt = self._outbox = self._body = None
        self._relay = self._direct = None
        self._drop_spare()
        self._received = False
        self._interim = 0
        if reusable:
            self.resume()
            self._pool.release(self)
        else:
            self.transport.close()


def _body(kind: BodyKind, length: int | None) -> Body:
    if kind is _LENGTH:
        return LengthBody(length or 0)
    return ChunkedBody() if kind is BodyKind.CHUNKED else UntilClose()
