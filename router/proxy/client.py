"""Client connections: one request after the other, and what may come between them.

A connection serves one exchange at a time. What a client sends ahead (pipelining) waits in the
buffer; past a bound reading stops. While a request is read or answered the end of the connection
means that the client left: half-closed clients are not waited for.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from router.proxy.reading import RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.config.structs import LimitsConfig
    from router.proxy.answers import Answer
    from router.proxy.exchange import Exchange
    from router.proxy.heads import KnownRequest, RequestHeads
    from router.proxy.sides import Client
    from router.proxy.sides import Plane as ExchangePlane

MAX_AHEAD_BYTES = 64 * 1024
"""What a client may send ahead of the answer that it waits for."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
LINGER_S = 2.0
"""After a refusal, what still comes is read and dropped for so long: closing at once would reset
the connection and could destroy the answer on its way."""


MakeExchange: TypeAlias = "Callable[[ExchangePlane, Client, KnownRequest, bytes], Exchange]"
"""Makes what serves one request."""


class Plane(Protocol):
    """What a connection needs of the data plane."""

    limits: LimitsConfig
    stopping: bool
    sent_bytes_total: int
    request_heads: RequestHeads
    exchange: MakeExchange

    def now(self) -> float:
        """The time, in monotonic seconds."""

    def connection_opened(self, connection: ClientConnection) -> bool:
        """A client connected; False if there are too many already."""

    def connection_closed(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""

    def own_answer(self, request: KnownRequest) -> Answer:
        """The router's own answer to a request that is not forwarded."""

    def hold_bytes(self, count: int) -> bool:
        """Account for so many bytes of a request body; False if that is too much in all."""

    def release_bytes(self, count: int) -> None:
        """So many bytes of a request body are held no more."""

    def refusal(self, request: KnownRequest | None, status: int, code: str, message: str) -> Answer:
        """An error answer in the shape that the client expects."""


class ClientConnection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_buffer",
        "_exchange",
        "_paused",
        "_plane",
        "_reader",
        "_transport",
        "address",
        "closing",
        "deadline_s",
        "deadline_status",
        "write",
        "writing_blocked",
    )

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.write: Callable[[bytes], None] = _not_connected
        """Sends bytes of an answer: the transport's own method, one call less for each chunk."""
        self.address = b""
        self.closing = False
        self.deadline_s: float | None = None
        """When what the connection waits for must have come; None: it may take any time."""
        self.deadline_status: int | None = None
        """The status that missing the deadline is answered with; None: close in silence."""
        self.writing_blocked = False
        """Whether the client reads more slowly than it is written to."""
        self._buffer = b""
        self._paused = False
        self._exchange: Exchange | None = None
        self._reader = RequestReader(plane)

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._exchange is None and self._reader.request is None and not self._buffer

    @property
    def accepts(self) -> bool:
        """Whether a request may be served now: none is being answered, nor is the end near."""
        return self._exchange is None and not self.closing

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = peer[0].encode()
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._wait_idle()
        if not self._plane.connection_opened(self):
            self.refuse(503, "too_many_connections", "The router has too many connections.")

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a request, or ahead of its answer."""
        if self._buffer:
            data = self._buffer + data
        if self._exchange is None:
            self._read(data)
            return
        self._buffer = data
        if len(data) > MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client closed its side: it left."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and with it whatever was done for it."""
        del exc
        self._plane.connection_closed(self)
        self.closing = True
        self.deadline_s = None
        self._buffer = b""
        self._reader.drop()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client does not keep up: stop its upstream."""
        self.writing_blocked = True
        self.expect_by(self._plane.limits.write_timeout_s, None)
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

    def answer(self, answer: Answer, request: KnownRequest | None, *, keep_alive: bool) -> None:
        """Send an answer of the router's own; it ends the exchange, if there is one."""
        keep_alive = keep_alive and not self._plane.stopping
        connection = b"\r\nConnection: close"
        if keep_alive:
            http10 = request is not None and request.head.minor == 0
            connection = b"\r\nConnection: keep-alive" if http10 else b""
        head_only = request is not None and request.head.method == b"HEAD"
        data = answer.encode(connection, head_only=head_only)
        self._plane.sent_bytes_total += len(data)
        self.write(data)
        self.exchange_done(keep_alive=keep_alive)

    def exchange_done(self, *, keep_alive: bool) -> None:
        """The answer is complete; the next request may come."""
        self._exchange = None
        if self.closing:
            return
        if not keep_alive or self._plane.stopping:
            self._linger()
            return
        if self.writing_blocked:
            self.expect_by(self._plane.limits.write_timeout_s, None)
        else:
            self._wait_idle()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._buffer:
            self._read(self._buffer)

    def break_off(self, *, reset: bool) -> None:
        """Close so that the client sees that the answer is incomplete."""
        self._exchange = None
        self.closing = True
        sock = self._transport.get_extra_info("socket")
        if reset and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
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
            self.refuse(status, "request_timeout", "The request did not come in time.")

    def stop(self) -> None:
        """Close now if idle, else after the answer."""
        if self.idle and not self.closing:
            self.closing = True
            self._transport.close()

    # -- used by the reader -------------------------------------------------------------------

    def serve(self, request: KnownRequest, body: bytes) -> None:
        """Serve a complete request, whose body is held."""
        self.deadline_s = self.deadline_status = None
        if not request.forwarded:
            answer = self._plane.own_answer(request)
            self.answer(answer, request, keep_alive=request.head.keep_alive)
            return
        plane = cast("ExchangePlane", self._plane)
        exchange = self._exchange = self._plane.exchange(plane, self, request, body)
        exchange.start()

    def answer_unread(self, request: KnownRequest) -> None:
        """Answer a request of which the router needs only the head, and close."""
        self.answer(self._plane.own_answer(request), request, keep_alive=False)

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close: where the next message begins is not known."""
        request = self._reader.request
        answer = self._plane.refusal(request, status, code, message)
        self.answer(answer, request, keep_alive=False)

    def expect_by(self, seconds: float, status: int | None) -> None:
        """More must come within so many seconds, or ``status`` is the answer; None: the end."""
        self.deadline_s = self._plane.now() + seconds
        self.deadline_status = status

    # -- inside -------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        self._buffer = b""  # or an answer given at once would have it read a second time
        rest = self._reader.read(self, data)
        if not self.closing:
            self._buffer = rest

    def _linger(self) -> None:
        """End the sending side, and drop what comes until the client does the same."""
        self.closing = True
        self._buffer = b""
        self._reader.drop()
        self.expect_by(LINGER_S, None)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _wait_idle(self) -> None:
        self.expect_by(self._plane.limits.keep_alive_s, None)


def _not_connected(data: bytes) -> None:
    msg = f"{len(data)} bytes written before the connection was made"
    raise RuntimeError(msg)
