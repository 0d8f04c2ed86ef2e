"""One request on a client connection, from its complete body to the end of its answer.

An exchange is what performs the dispatcher's actions for one request: it sends attempts, relays
the answer, refuses, aborts, cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from router.api.body import MalformedBodyError
from router.api.errors import error_body, error_event
from router.api.routes import Dialect
from router.core.request import Request
from router.http1.chunked import ChunkedBody
from router.http1.fields import HEAD_END
from router.http1.response import BodyKind, ResponseHead
from router.proxy.answers import Answer
from router.proxy.understanding import understand

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.actions import Abort, Actions, Refuse
    from router.core.dispatcher import Dispatcher
    from router.core.request import Attempt, Failure
    from router.proxy.heads import KnownRequest
    from router.proxy.pool import UpstreamPool
    from router.proxy.upstream import UpstreamConnection

_EVENT = b"data:"
_MAX_REQUEST_ID_BYTES = 128

TOKENS_AT_ONCE = 8
"""Of how many streamed tokens the dispatcher is told at once, after the first read: telling it of
each costs as much as relaying it."""


class Plane(Protocol):
    """What an exchange needs of the data plane."""

    dispatcher: Dispatcher
    pool: UpstreamPool
    aliases: dict[str, str]
    sent_bytes_total: int

    def now(self) -> float:
        """The time, in monotonic seconds."""

    def perform(self, actions: Actions) -> None:
        """Do what the dispatcher asks."""

    def release_bytes(self, count: int) -> None:
        """So many bytes of a request body are held no more."""

    def request_id(self) -> bytes:
        """A new request id."""


class Client(Protocol):
    """What an exchange needs of its client's connection."""

    address: bytes
    """The client's IP address; empty when it has none."""
    writing_blocked: bool
    """Whether the client reads more slowly than it is written to."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends bytes of the answer."""

    def answer(self, answer: Answer, request: KnownRequest | None, *, keep_alive: bool) -> None:
        """Send an answer of the router's own."""

    def exchange_done(self, *, keep_alive: bool) -> None:
        """The exchange is over; the next request may come."""

    def break_off(self, *, reset: bool) -> None:
        """Close so that the client sees that the answer is incomplete."""


class Exchange:
    """One request and its answer.

    Args:
        plane: The data plane.
        client: The connection that the request came on.
        known: Its head, and what follows from it.
        body: Its whole body; the plane counts its bytes as held until they are released.
    """

    __slots__ = (
        "_answer_head",
        "_at_boundary",
        "_attempt",
        "_body",
        "_client",
        "_close_after",
        "_decoder",
        "_event_stream",
        "_held",
        "_known",
        "_plain",
        "_plane",
        "_reframed",
        "_request",
        "_request_id",
        "_sent_bytes",
        "_tokens",
        "_upstream",
        "method",
    )

    def __init__(self, plane: Plane, client: Client, known: KnownRequest, body: bytes) -> None:
        self._plane = plane
        self._client = client
        self._known = known
        self._body = body
        self._held = len(body)
        self.method = known.head.method
        self._close_after = not known.head.keep_alive
        given = known.head.request_id
        usable = given is not None and len(given) <= _MAX_REQUEST_ID_BYTES
        self._request_id = given if given is not None and usable else plane.request_id()
        self._request: Request | None = None
        self._attempt: Attempt | None = None
        self._upstream: UpstreamConnection | None = None
        self._answer_head = b""
        self._event_stream = False
        self._tokens = 0
        self._sent_bytes = 0
        self._plain = False
        self._at_boundary = False
        self._reframed = False
        self._decoder: ChunkedBody | None = None

    # -- from the client's side ---------------------------------------------------------------

    def start(self) -> None:
        """Understand the request and hand it to the dispatcher."""
        plane, given = self._plane, self._body
        try:
            facts, body = understand(self._known, given, plane.dispatcher.fleet, plane.aliases)
        except MalformedBodyError as error:
            self._answer_error(400, "invalid_body", str(error), None)
            return
        if body is not given:
            self._replace_body(body)
        now = plane.now()
        request_id = self._request_id.decode("latin-1")
        request = self._request = Request(request_id, facts, now, self)
        plane.perform(plane.dispatcher.request_arrived(request, now))

    def client_gone(self) -> None:
        """The client left."""
        self._release_body()
        if self._request is not None:
            plane = self._plane
            plane.perform(plane.dispatcher.client_gone(self._request, plane.now()))
            self._ended()

    def pause(self) -> None:
        """The client reads more slowly than the answer comes."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self._upstream is not None:
            self._upstream.resume()

    # -- actions of the dispatcher ------------------------------------------------------------

    def send(self, attempt: Attempt) -> None:
        """Send the request to the attempt's replica."""
        self._attempt = attempt
        self._plane.pool.send(self, attempt)

    def cancel(self, attempt: Attempt) -> None:
        """Drop the attempt."""
        self._plane.pool.cancel_connecting(attempt)
        if self._upstream is not None:
            self._upstream.abort()
        self._attempt = self._upstream = None

    def refuse(self, action: Refuse) -> None:
        """Answer with an error."""
        self._ended()
        self._answer_error(action.status, action.code, action.message, action.retry_after_s)

    def abort(self, action: Abort) -> None:
        """End the answer so that the client sees that it is incomplete."""
        telling = self._event_stream and (self._at_boundary or self._decoder is not None)
        if telling:
            event = error_event(self._dialect, action.code, action.message)
            chunked = self._decoder is None and self._known.head.minor == 1
            self._write(_chunk(event) if chunked else event)
        self._ended()
        self._client.break_off(reset=self._known.head.minor == 0)

    # -- Recipient of the response ------------------------------------------------------------

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """Head and body as they go to the replica; ``connection`` carries them."""
        self._upstream = connection
        known, body, address = self._known, self._body, self._client.address
        head = known.head
        lines = known.wire
        if body or head.chunked or head.length is not None:
            lines = b"%b\r\nContent-Length: %d" % (lines, len(body))
        if head.request_id is None:
            lines = b"%b\r\nX-Request-Id: %b" % (lines, self._request_id)
        forwarded_for = address
        if head.forwarded_for:
            forwarded_for = b"%b, %b" % (head.forwarded_for, address or b"unknown")
        if forwarded_for:
            lines = b"%b\r\nX-Forwarded-For: %b" % (lines, forwarded_for)
        if head.minor == 0 and head.field(b"host") is None:
            authority = connection.replica.url.partition("://")[2].encode()
            lines = b"%b\r\nHost: %b" % (lines, authority)
        return lines + HEAD_END, body

    def response_began(self, head: ResponseHead, length: int | None) -> None:
        """The final head came: from here on the answer is relayed."""
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 - no answer without an attempt
        if self._client.writing_blocked:
            self.pause()
        self._release_body()
        self._plane.dispatcher.headers_received(attempt, head.status)
        self._event_stream = head.event_stream
        framing = self._framing(head, length)
        self._answer_head = b"HTTP/1.1 %d %b%b%b\r\nx-pointsman-replica: %b%b%b\r\n\r\n" % (
            head.status,
            head.reason,
            head.lines,
            framing,
            attempt.replica.name.encode(),
            b"" if head.has_request_id else b"\r\nx-request-id: " + self._request_id,
            self._connection_line(),
        )

    def relay(self, data: bytes) -> None:
        """Pass on bytes of the answer's body; called for each read of a stream."""
        if not self._plain:
            self._relay_first(data)
            return
        self._client.write(data)
        self._sent_bytes += len(data)
        if self._event_stream:
            self._tokens += data.count(_EVENT)
            if self._tokens >= TOKENS_AT_ONCE:
                self._tell_progress()

    def flush(self) -> None:
        """Send the answer's head, if no body came along with it."""
        if self._answer_head:
            self._write(self._answer_head)
            self._answer_head = b""

    def response_ended(self) -> None:
        """The answer is complete."""
        self.flush()
        if self._reframed and self._decoder is None:
            self._write(b"0\r\n\r\n")
        if self._tokens:
            self._tell_progress()
        attempt, plane = self._attempt, self._plane
        assert attempt is not None  # noqa: S101 - no answer without an attempt
        self._attempt = self._upstream = None
        actions = plane.dispatcher.attempt_ended(attempt, plane.now())
        self._ended()
        self._client.exchange_done(keep_alive=not self._close_after)
        plane.perform(actions)

    def attempt_failed(self, attempt: Attempt, failure: Failure, *, at_boundary: bool) -> None:
        """The attempt broke."""
        self.flush()
        self._attempt = self._upstream = None
        self._at_boundary = at_boundary
        plane = self._plane
        plane.perform(plane.dispatcher.attempt_failed(attempt, failure, plane.now()))

    # -- inside -------------------------------------------------------------------------------

    def _ended(self) -> None:
        """Let go of the request, which holds us: a cycle would have to wait for the collector."""
        self._request = None
        self._plane.sent_bytes_total += self._sent_bytes
        self._sent_bytes = 0

    def _relay_first(self, data: bytes) -> None:
        """Pass on the first bytes along with the head, or bytes that must be reframed."""
        if self._event_stream:
            self._tokens += data.count(_EVENT)
        if self._reframed:
            data = self._reframe(data)
        else:
            self._plain = True
        if self._answer_head:
            data = self._answer_head + data
            self._answer_head = b""
        self._write(data)
        self._tell_progress()

    def _write(self, data: bytes) -> None:
        self._client.write(data)
        self._sent_bytes += len(data)

    def _tell_progress(self) -> None:
        """Tell the dispatcher of tokens streamed; of the first at once, later of several."""
        attempt, plane = self._attempt, self._plane
        tokens, self._tokens = self._tokens, 0
        if attempt is not None:
            plane.dispatcher.progress(attempt, tokens, plane.now())

    @property
    def _dialect(self) -> Dialect:
        route = self._known.route
        return route.dialect if route is not None else Dialect.OPENAI

    def _replace_body(self, body: bytes) -> None:
        self._plane.release_bytes(self._held - len(body))
        self._held = len(body)
        self._body = body

    def _release_body(self) -> None:
        if self._held:
            self._plane.release_bytes(self._held)
            self._held = 0
        self._body = b""

    def _framing(self, head: ResponseHead, length: int | None) -> bytes:
        """Decide how the body is framed towards the client; returns the fields for it."""
        if head.body is BodyKind.LENGTH or head.body is BodyKind.NONE:
            if length is None or head.status == 204:
                return b""
            return b"\r\nContent-Length: %d" % length
        if self._known.head.minor == 1:
            self._reframed = head.body is BodyKind.CLOSE
            return b"\r\nTransfer-Encoding: chunked"
        if head.body is BodyKind.CHUNKED:
            self._reframed = True
            self._decoder = ChunkedBody()
        self._close_after = True
        return b""

    def _reframe(self, data: bytes) -> bytes:
        """The bytes as they go to a client that cannot have them as they came."""
        if self._decoder is None:
            return _chunk(data)
        pieces: list[bytes] = []
        self._decoder.decode(data, pieces)
        return b"".join(pieces)

    def _connection_line(self) -> bytes:
        if self._close_after:
            return b"\r\nConnection: close"
        return b"\r\nConnection: keep-alive" if self._known.head.minor == 0 else b""

    def _answer_error(
        self, status: int, code: str, message: str, retry_after_s: int | None
    ) -> None:
        self._release_body()
        lines = b"\r\nx-request-id: " + self._request_id
        if retry_after_s is not None:
            lines += b"\r\nRetry-After: %d" % retry_after_s
        body = error_body(self._dialect, status, code, message)
        answer = Answer(status, body, lines=lines)
        self._client.answer(answer, self._known, keep_alive=not self._close_after)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
