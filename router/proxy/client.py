"""Client connections: from bytes to complete requests, one after the other.

A connection serves one exchange at a time. What a client sends ahead (pipelining) waits in the
buffer; past a bound reading stops. While a request is read or answered the end of the connection
means that the client left: half-closed clients are not waited for.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol, cast

from router.http1.chunked import ChunkedBody
from router.http1.errors import ProtocolError
from router.http1.fields import HEAD_END, check_unfinished
from router.http1.request import RequestHead, parse_request_head
from router.proxy.answers import CONTINUE, Answer
from router.proxy.exchange import Exchange

if TYPE_CHECKING:
    from router.api.routes import Route
    from router.config import LimitsConfig
    from router.proxy.exchange import Plane as ExchangePlane

MAX_HEAD_BYTES = 64 * 1024
MAX_AHEAD_BYTES = 64 * 1024
"""What a client may send ahead of the answer that it waits for."""
LINGER_S = 2.0
"""After a refusal, what still comes is read and dropped for so long: closing at once would reset
the connection and could destroy the answer on its way."""


class Plane(Protocol):
    """What a connection needs of the data plane."""

    limits: LimitsConfig
    stopping: bool
    sent_bytes_total: int

    def now(self) -> float:
        """The time, in monotonic seconds."""

    def connection_opened(self, connection: ClientConnection) -> bool:
        """A client connected; False if there are too many already."""

    def connection_closed(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""

    def route(self, head: RequestHead) -> Route | Answer:
        """What to do with a request: where it belongs, or the router's own answer."""

    def hold_bytes(self, count: int) -> bool:
        """Account for so many bytes of a request body; False if that is too much in all."""

    def release_bytes(self, count: int) -> None:
        """So many bytes of a request body are held no more."""

    def refusal(self, head: RequestHead | None, status: int, code: str, message: str) -> Answer:
        """An error answer in the shape that the client expects."""

    def request_id(self, head: RequestHead) -> bytes:
        """The id that the client gave the request, or a new one."""


class ClientConnection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_advancing",
        "_body",
        "_body_bytes",
        "_buffer",
        "_chunks",
        "_close_after_body",
        "_exchange",
        "_head",
        "_held",
        "_paused",
        "_plane",
        "_route",
        "_transport",
        "address",
        "closing",
        "deadline_s",
        "deadline_status",
        "writing_blocked",
    )

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.address = b""
        self.closing = False
        self.deadline_s: float | None = None
        """When what the connection waits for must have come; None: it may take any time."""
        self.deadline_status: int | None = None
        """The status that missing the deadline is answered with; None: close in silence."""
        self._buffer = bytearray()
        self._paused = False
        self._advancing = False
        self.writing_blocked = False
        """Whether the client reads more slowly than it is written to."""
        self._exchange: Exchange | None = None
        self._held = 0
        self._next_message()

    def _next_message(self) -> None:
        self._head: RequestHead | None = None
        self._route: Route | Answer | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._chunks: ChunkedBody | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._exchange is None and self._head is None and not self._buffer

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._exchange is not None

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = peer[0].encode()
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._wait_idle()
        if not self._plane.connection_opened(self):
            self._refuse(503, "too_many_connections", "The router has too many connections.")

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a request, or ahead of its answer."""
        if self.closing:
            return
        self._buffer += data
        if self._exchange is None:
            self._advance()
        elif len(self._buffer) > MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client closed its side: it left."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it whatever was done for it."""
        del exc
        self._plane.connection_closed(self)
        self._plane.release_bytes(self._held)
        self._held = 0
        self.closing = True
        self.deadline_s = None
        self._buffer.clear()
        self._next_message()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client does not keep up: stop its upstream."""
        self.writing_blocked = True
        self._expect_by(self._plane.limits.write_timeout_s, None)
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self.writing_blocked = False
        if self._exchange is not None:
            self.deadline_s = None
            self._exchange.resume()
        elif self.idle and not self.closing:
            self._wait_idle()

    # -- used by the exchange and the data plane ----------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        self._plane.sent_bytes_total += len(data)
        self._transport.write(data)

    def answer(self, answer: Answer, *, keep_alive: bool) -> None:
        """Send an answer of the router's own; it ends the exchange, if there is one."""
        head = self._head
        keep_alive = keep_alive and not self._plane.stopping
        connection = b"\r\nConnection: close"
        if keep_alive:
            http10 = head is not None and head.minor == 0
            connection = b"\r\nConnection: keep-alive" if http10 else b""
        head_only = head is not None and head.method == b"HEAD"
        self.write(answer.encode(connection, head_only=head_only))
        self.exchange_done(keep_alive=keep_alive)

    def exchange_done(self, *, keep_alive: bool) -> None:
        """The answer is complete; the next request may come."""
        self._exchange = None
        self._next_message()
        if self.closing:
            return
        if not keep_alive or self._plane.stopping:
            self._linger()
            return
        if self.writing_blocked:
            self._expect_by(self._plane.limits.write_timeout_s, None)
        else:
            self._wait_idle()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._buffer and not self._advancing:
            self._advance()

    def break_off(self, *, reset: bool) -> None:
        """Close so that the client sees that the answer is incomplete."""
        self._exchange = None
        self.closing = True
        if reset:
            self._transport.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()

    def deadline_missed(self) -> None:
        """What the connection waited for did not come in time."""
        status = self.deadline_status
        self.deadline_s = None
        if status is None or self.closing or self._exchange is not None:
            self._transport.abort()
        else:
            self._refuse(status, "request_timeout", "The request did not come in time.")

    def stop(self) -> None:
        """Close now if idle, else after the answer."""
        if self.idle and not self.closing:
            self.closing = True
            self._transport.close()

    # -- reading requests ---------------------------------------------------------------------

    def _advance(self) -> None:
        """Serve as many requests as the buffer holds, until one must be waited for."""
        self._advancing = True
        try:
            while self._exchange is None and not self.closing and self._buffer:
                if self._head is None and not self._read_head():
                    return
                if not self._read_body():
                    return
                self._serve()
        except ProtocolError as error:
            self._refuse(error.status, "invalid_request", error.message)
        finally:
            self._advancing = False

    def _read_head(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):  # some clients end a body with one (RFC 9112 §2.2)
            del buffer[:2]
        end = buffer.find(HEAD_END, 0, MAX_HEAD_BYTES)
        if end < 0:
            check_unfinished(buffer[:MAX_HEAD_BYTES])
            if len(buffer) >= MAX_HEAD_BYTES:
                msg = f"The request head is longer than {MAX_HEAD_BYTES} bytes."
                raise ProtocolError(msg, 431)
            if buffer and self.deadline_status is None:
                self._expect_by(self._plane.limits.head_timeout_s, 408)
            return False
        head = parse_request_head(bytes(buffer[: end + 4]))
        del buffer[: end + 4]
        self._head = head
        self._route = self._plane.route(head)
        self._check_body(head)
        return True

    def _check_body(self, head: RequestHead) -> None:
        """Refuse what needs not be read; prepare to read the rest."""
        limits = self._plane.limits
        if not head.has_body:
            return
        if isinstance(self._route, Answer):
            head.keep_alive = False  # the body is not read: announce the close
            self.answer(self._route, keep_alive=False)
            return
        if head.length is not None and head.length > limits.max_body_bytes:
            self._too_large()
            return
        if head.chunked:
            self._chunks = ChunkedBody()
        if head.expects_continue and not self._buffer:
            self._transport.write(CONTINUE)
        self._expect_by(limits.body_timeout_s, 408)

    def _read_body(self) -> bool:
        """Take what the buffer holds of the body; returns whether the request is complete."""
        head = self._head
        if head is None or self.closing:
            return False
        if not head.has_body:
            return True
        if not self._buffer:
            return False
        if self._chunks is not None:
            return self._read_chunks(self._chunks)
        assert head.length is not None  # noqa: S101 - a body is either chunked or counted
        wanted = head.length - self._body_bytes
        if len(self._buffer) <= wanted:
            piece = bytes(self._buffer)
            self._buffer = bytearray()
        else:
            piece = bytes(self._buffer[:wanted])
            del self._buffer[:wanted]
        return self._take(piece) and self._body_bytes == head.length

    def _read_chunks(self, chunks: ChunkedBody) -> bool:
        data = bytes(self._buffer)
        pieces: list[bytes] = []
        end = chunks.decode(data, pieces)
        self._buffer = bytearray() if end < 0 else self._buffer[end:]
        return self._take(b"".join(pieces)) and end >= 0

    def _take(self, piece: bytes) -> bool:
        """Keep a piece of the body, within the bounds."""
        self._body.append(piece)
        self._body_bytes += len(piece)
        if self._body_bytes > self._plane.limits.max_body_bytes:
            self._too_large()
            return False
        if not self._plane.hold_bytes(len(piece)):
            self._refuse(503, "overloaded", "The router holds too many request bodies.")
            return False
        self._held += len(piece)
        self._expect_by(self._plane.limits.body_timeout_s, 408)
        return True

    def _serve(self) -> None:
        head, route = self._head, self._route
        assert head is not None  # noqa: S101 - set by _read_head
        assert route is not None  # noqa: S101 - set by _read_head
        self.deadline_s = self.deadline_status = None
        if isinstance(route, Answer):
            self.answer(route, keep_alive=head.keep_alive)
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._held = 0
        plane = cast("ExchangePlane", self._plane)
        exchange = self._exchange = Exchange(plane, self, head, route, body)
        exchange.start(self._plane.request_id(head))

    # -- refusing and closing -----------------------------------------------------------------

    def _too_large(self) -> None:
        limit = self._plane.limits.max_body_bytes
        self._refuse(413, "body_too_large", f"The request body is longer than {limit} bytes.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close: where the next message begins is not known."""
        self.answer(self._plane.refusal(self._head, status, code, message), keep_alive=False)

    def _linger(self) -> None:
        """End the sending side, and drop what comes until the client does the same."""
        self.closing = True
        self._plane.release_bytes(self._held)
        self._held = 0
        self._buffer.clear()
        self._expect_by(LINGER_S, None)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _wait_idle(self) -> None:
        self._expect_by(self._plane.limits.keep_alive_s, None)

    def _expect_by(self, seconds: float, status: int | None) -> None:
        self.deadline_s = self._plane.now() + seconds
        self.deadline_status = status
