"""Reading requests: from the bytes of a client's connection to complete requests.

Sans-I/O but for what it asks of the connection: serve, answer, refuse, wait until.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from router.http1.chunked import ChunkedBody
from router.http1.errors import ProtocolError
from router.http1.fields import HEAD_END, check_unfinished
from router.proxy.answers import CONTINUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.config.structs import LimitsConfig
    from router.proxy.heads import KnownRequest, RequestHeads

MAX_HEAD_BYTES = 64 * 1024


class Plane(Protocol):
    """What reading needs of the data plane."""

    limits: LimitsConfig
    request_heads: RequestHeads

    def hold_bytes(self, count: int) -> bool:
        """Account for so many bytes of a request body; False if that is too much in all."""

    def release_bytes(self, count: int) -> None:
        """So many bytes of a request body are held no more."""


class Connection(Protocol):
    """What reading needs of the client's connection."""

    deadline_status: int | None
    """The status that the next deadline is answered with; None: none is set for a request."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends bytes to the client."""

    @property
    def accepts(self) -> bool:
        """Whether a request may be served now: none is being answered, nor is the end near."""

    def serve(self, request: KnownRequest, body: bytes) -> None:
        """Serve a complete request, whose body is held."""

    def answer_unread(self, request: KnownRequest) -> None:
        """Answer a request of which the router needs only the head, and close."""

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close: where the next message begins is not known."""

    def expect_by(self, seconds: float, status: int | None) -> None:
        """More must come within so many seconds, or ``status`` is the answer."""


class RequestReader:
    """Reads one request after the other.

    Args:
        plane: The data plane; its bounds hold.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_checked",
        "_chunks",
        "_held",
        "_length",
        "_plane",
        "request",
    )

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.request: KnownRequest | None = None
        """The request whose head was read, and whose body was not yet."""
        self._length: int | None = None
        self._chunks: ChunkedBody | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._held = 0
        self._checked = 0

    def read(self, connection: Connection, data: bytes) -> bytes:
        """Have as many requests served as ``data`` holds, until one must be waited for.

        Args:
            connection: Who serves them. (It is not kept: that would be a cycle, for the collector.)
            data: What came.

        Returns:
            What must be given again, with what comes after it.
        """
        try:
            while data and connection.accepts:
                if self.request is not None:
                    data = self._read_body(connection, self.request, data)
                    continue
                # Some clients end a body with an empty line (RFC 9112 §2.2).
                start = 2 if data.startswith(b"\r\n") else 0
                end = data.find(HEAD_END, start, MAX_HEAD_BYTES)
                if end < 0:
                    self._wait_for_head(connection, data)
                    return data
                data = self._read_head(connection, data, start, end + 4)
        except ProtocolError as error:
            connection.refuse(error.status, "invalid_request", error.message)
            return b""
        return data

    def drop(self) -> None:
        """Forget the request that is being read."""
        self._plane.release_bytes(self._held)
        self._held = self._body_bytes = self._checked = 0
        self._body = []
        self.request = self._length = self._chunks = None

    def _read_head(self, connection: Connection, data: bytes, start: int, body_at: int) -> bytes:
        """Read a head, and its body if that came with it; returns what follows."""
        self._checked = 0
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
                self._begin_body(connection, request, length, waiting=body_at == len(data))
                return data[body_at:]
            if not plane.hold_bytes(body_end - body_at):
                self.request = request
                self._overloaded(connection)
                return b""
            connection.serve(request, data[body_at:body_end])
            return data[body_end:]
        connection.serve(request, b"")
        return data[body_at:]

    def _wait_for_head(self, connection: Connection, data: bytes) -> None:
        check_unfinished(data[:MAX_HEAD_BYTES], self._checked)
        if len(data) >= MAX_HEAD_BYTES:
            msg = f"The request head is longer than {MAX_HEAD_BYTES} bytes."
            raise ProtocolError(msg, 431)
        if data != b"\r\n" and connection.deadline_status is None:
            connection.expect_by(self._plane.limits.head_timeout_s, 408)
        self._checked = len(data)

    def _begin_body(
        self, connection: Connection, request: KnownRequest, length: int | None, *, waiting: bool
    ) -> None:
        """Refuse a body that needs not be read; prepare to read another."""
        self.request = request
        if not request.forwarded:
            connection.answer_unread(request)
            return
        limits = self._plane.limits
        if length is not None and length > limits.max_body_bytes:
            self._too_large(connection)
            return
        self._length = length
        if request.head.chunked:
            self._chunks = ChunkedBody()
        if request.head.expects_continue and waiting:
            connection.write(CONTINUE)
        connection.expect_by(limits.body_timeout_s, 408)

    def _read_body(self, connection: Connection, request: KnownRequest, data: bytes) -> bytes:
        """Take what ``data`` holds of the body; returns what follows it."""
        if self._chunks is not None:
            pieces: list[bytes] = []
            end = self._chunks.decode(data, pieces)
            complete, piece = end >= 0, b"".join(pieces)
        else:
            wanted = (self._length or 0) - self._body_bytes
            complete, piece, end = len(data) >= wanted, data[:wanted], wanted
        if not self._take(connection, piece) or not complete:
            return b""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._held = 0  # from now on the exchange's
        self.drop()
        connection.serve(request, body)
        return data[end:]

    def _take(self, connection: Connection, piece: bytes) -> bool:
        """Keep a piece of the body, within the bounds."""
        self._body.append(piece)
        self._body_bytes += len(piece)
        announced = self._chunks.announced if self._chunks is not None else 0
        if self._body_bytes + announced > self._plane.limits.max_body_bytes:
            self._too_large(connection)
            return False
        if not self._plane.hold_bytes(len(piece)):
            self._overloaded(connection)
            return False
        self._held += len(piece)
        connection.expect_by(self._plane.limits.body_timeout_s, 408)
        return True

    def _too_large(self, connection: Connection) -> None:
        limit = self._plane.limits.max_body_bytes
        message = f"The request body is longer than {limit} bytes."
        connection.refuse(413, "body_too_large", message)

    def _overloaded(self, connection: Connection) -> None:
        message = "The router holds too many request bodies."
        connection.refuse(503, "overloaded", message)
