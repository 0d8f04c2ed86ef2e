"""Client connections: from bytes to complete requests, one after the other.

A connection serves one exchange at a time. What a client sends ahead (pipelining) waits in the
buffer; past a bound reading stops. While a request is read or answered the end of the connection
means that the client left: half-closed clients are not waited for.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Protocol, cast

from router.http1.chunked import ChunkedBody
from router.http1.errors import ProtocolError
from router.http1.fields import HEAD_END, check_unfinished
from router.proxy.answers import CONTINUE, Answer
from router.proxy.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.config.structs import LimitsConfig
    from router.proxy.exchange import Plane as ExchangePlane
    from router.proxy.heads import KnownRequest, RequestHeads

MAX_HEAD_BYTES = 64 * 1024
MAX_AHEAD_BYTES = 64 * 1024
"""What a client may send ahead of the answer that it waits for."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
LINGER_S = 2.0
"""After a refusal, what still comes is read and dropped for so long: closing at once would reset
the connection and could destroy the answer on its way."""


class Plane(Protocol):
    """What a connection needs of the data plane."""

    limits: LimitsConfig
    stopping: bool
    sent_bytes_total: int
    request_heads: RequestHeads

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
        "_body",
        "_body_bytes",
        "_buffer",
        "_checked",
        "_chunks",
        "_exchange",
        "_held",
        "_length",
        "_paused",
        "_plane",
        "_reading",
        "_request",
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
        self._checked = 0
        self._paused = False
        self._reading = False
        self._exchange: Exchange | None = None
        self._request: KnownRequest | None = None
        self._length: int | None = None
        self._chunks: ChunkedBody | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._held = 0

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._exchange is None and self._request is None and not self._buffer

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
            self._refuse(503, "too_many_connections", "The router has too many connections.")

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
        self._drop_request()
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
            self._expect_by(self._plane.limits.write_timeout_s, None)
        else:
            self._wait_idle()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._buffer and not self._reading:
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
            self._refuse(status, "request_timeout", "The request did not come in time.")

    def stop(self) -> None:
        """Close now if idle, else after the answer."""
        if self.idle and not self.closing:
            self.closing = True
            self._transport.close()

    # -- reading requests ---------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Serve as many requests as ``data`` holds, until one must be waited for."""
        self._buffer = b""
        self._reading = True
        try:
            while data and self._exchange is None and not self.closing:
                if self._request is None:
                    data = self._read_head(data)
                else:
                    data = self._read_body(self._request, data)
            if not self.closing and self._exchange is not None:
                self._buffer = data
        except ProtocolError as error:
            self._refuse(error.status, "invalid_request", error.message)
        finally:
            self._reading = False

    def _read_head(self, data: bytes) -> bytes:
        """Read a head, and its body if that came with it; returns what follows."""
        # Some clients end a body with an empty line (RFC 9112 §2.2).
        start = 2 if data.startswith(b"\r\n") else 0
        end = data.find(HEAD_END, start, MAX_HEAD_BYTES)
        if end < 0:
            self._wait_for_head(data)
            return b""
        self._checked = 0
        body_at = end + 4
        plane = self._plane
        request, length = plane.request_heads.read(data[start:body_at])
        if request.head.chunked or length:
            body_end = body_at + (length or 0)
            limits = plane.limits
            if (
                not request.forwarded
                or request.head.chunked
                or body_end > len(data)
                or body_end - body_at > limits.max_body_bytes
            ):
                self._begin_body(request, length, waiting=body_at == len(data))
                return data[body_at:]
            if not plane.hold_bytes(body_end - body_at):
                self._request = request
                self._overloaded()
                return b""
            self._serve(request, data[body_at:body_end])
            return data[body_end:]
        self._serve(request, b"")
        return data[body_at:]

    def _wait_for_head(self, data: bytes) -> None:
        check_unfinished(data[:MAX_HEAD_BYTES], self._checked)
        if len(data) >= MAX_HEAD_BYTES:
            msg = f"The request head is longer than {MAX_HEAD_BYTES} bytes."
            raise ProtocolError(msg, 431)
        if data != b"\r\n" and self.deadline_status is None:
            self._expect_by(self._plane.limits.head_timeout_s, 408)
        self._checked = len(data)
        self._buffer = data

    def _begin_body(self, request: KnownRequest, length: int | None, *, waiting: bool) -> None:
        """Refuse a body that needs not be read; prepare to read another."""
        self._request = request
        if not request.forwarded:
            answer = self._plane.own_answer(request)
            self.answer(answer, request, keep_alive=False)  # unread: announce the close
            return
        limits = self._plane.limits
        if length is not None and length > limits.max_body_bytes:
            self._too_large()
            return
        self._length = length
        if request.head.chunked:
            self._chunks = ChunkedBody()
        if request.head.expects_continue and waiting:
            self._transport.write(CONTINUE)
        self._expect_by(limits.body_timeout_s, 408)

    def _read_body(self, request: KnownRequest, data: bytes) -> bytes:
        """Take what ``data`` holds of the body; returns what follows it."""
        if self._chunks is not None:
            pieces: list[bytes] = []
            end = self._chunks.decode(data, pieces)
            complete, piece = end >= 0, b"".join(pieces)
        else:
            wanted = (self._length or 0) - self._body_bytes
            complete, piece, end = len(data) >= wanted, data[:wanted], wanted
        if not self._take(piece) or not complete:
            return b""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._held = 0
        self._drop_request()
        self._serve(request, body)
        return data[end:]

    def _take(self, piece: bytes) -> bool:
        """Keep a piece of the body, within the bounds."""
        self._body.append(piece)
        self._body_bytes += len(piece)
        announced = self._chunks.announced if self._chunks is not None else 0
        if self._body_bytes + announced > self._plane.limits.max_body_bytes:
            self._too_large()
            return False
        if not self._plane.hold_bytes(len(piece)):
            self._overloaded()
            return False
        self._held += len(piece)
        self._expect_by(self._plane.limits.body_timeout_s, 408)
        return True

    def _serve(self, request: KnownRequest, body: bytes) -> None:
        self.deadline_s = self.deadline_status = None
        if not request.forwarded:
            answer = self._plane.own_answer(request)
            self.answer(answer, request, keep_alive=request.head.keep_alive)
            return
        plane = cast("ExchangePlane", self._plane)
        exchange = self._exchange = Exchange(plane, self, request, body)
        exchange.start()

    # -- refusing and closing -----------------------------------------------------------------

    def _too_large(self) -> None:
        limit = self._plane.limits.max_body_bytes
        self._refuse(413, "body_too_large", f"The request body is longer than {limit} bytes.")

    def _overloaded(self) -> None:
        self._refuse(503, "overloaded", "The router holds too many request bodies.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close: where the next message begins is not known."""
        request = self._request
        answer = self._plane.refusal(request, status, code, message)
        self.answer(answer, request, keep_alive=False)

    def _linger(self) -> None:
        """End the sending side, and drop what comes until the client does the same."""
        self.closing = True
        self._drop_request()
        self._expect_by(LINGER_S, None)
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _drop_request(self) -> None:
        """Forget the request that is being read."""
        self._plane.release_bytes(self._held)
        self._held = self._body_bytes = self._checked = 0
        self._buffer = b""
        self._body = []
        self._request = self._length = self._chunks = None

    def _wait_idle(self) -> None:
        self._expect_by(self._plane.limits.keep_alive_s, None)

    def _expect_by(self, seconds: float, status: int | None) -> None:
        self.deadline_s = self._plane.now() + seconds
        self.deadline_status = status


def _not_connected(data: bytes) -> None:
    msg = f"{len(data)} bytes written before the connection was made"
    raise RuntimeError(msg)
