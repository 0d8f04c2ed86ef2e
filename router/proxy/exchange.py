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
from router.proxy.answers import Answer
from router.proxy.forwarding import forwarded_head
from router.proxy.relay import Relay, way_to_client
from router.proxy.understanding import understand

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.actions import Abort, Actions, Refuse
    from router.core.dispatcher import Dispatcher
    from router.core.request import Attempt, Failure
    from router.http1.response import ResponseHead
    from router.proxy.heads import KnownRequest
    from router.proxy.pool import UpstreamPool
    from router.proxy.understanding import Understanding
    from router.proxy.upstream import UpstreamConnection

_MAX_REQUEST_ID_BYTES = 128


class Plane(Protocol):
    """What an exchange needs of the data plane."""

    dispatcher: Dispatcher
    pool: UpstreamPool
    aliases: dict[str, str]
    understanding: Understanding
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
        "_at_boundary",
        "_attempt",
        "_body",
        "_client",
        "_close_after",
        "_held",
        "_known",
        "_plane",
        "_relay",
        "_request",
        "_request_id",
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
        self._relay: Relay | None = None
        self._at_boundary = False

    # -- from the client's side ---------------------------------------------------------------

    def start(self) -> None:
        """Understand the request and hand it to the dispatcher."""
        plane, given = self._plane, self._body
        try:
            facts, body = understand(
                self._known, given, plane.dispatcher.fleet, plane.aliases, plane.understanding
            )
        except MalformedBodyError as error:
            self._answer_error(400, error.code, str(error), None)
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
        self._tell_pause(paused=True)

    def resume(self) -> None:
        """The client caught up."""
        if self._upstream is not None:
            self._upstream.resume()
        self._tell_pause(paused=False)

    # -- actions of the dispatcher ------------------------------------------------------------

    def send(self, attempt: Attempt) -> None:
        """Send the request to the attempt's replica."""
        self._attempt = attempt
        self._plane.pool.send(self, attempt)

    def cancel(self, attempt: Attempt) -> None:
        """Drop the attempt; another one may follow, or the end of what was begun."""
        self._plane.pool.cancel_connecting(attempt)
        if self._relay is not None:
            self._relay.flush()
        if self._upstream is not None:
            self._at_boundary = self._upstream.at_boundary
            self._upstream.abort()
        self._attempt = self._upstream = None

    def refuse(self, action: Refuse) -> None:
        """Answer with an error."""
        self._ended()
        self._answer_error(action.status, action.code, action.message, action.retry_after_s)

    def abort(self, action: Abort) -> None:
        """End the answer so that the client sees that it is incomplete."""
        if self._relay is not None:
            event = error_event(self._dialect, action.code, action.message)
            self._relay.interrupt(event, at_boundary=self._at_boundary)
        self._ended()
        self._client.break_off(reset=self._known.head.minor == 0)

    # -- Recipient of the response ------------------------------------------------------------

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """Head and body as they go to the replica; ``connection`` carries them."""
        self._upstream = connection
        body = self._body
        head = forwarded_head(
            self._known, len(body), self._request_id, self._client.address, connection.replica.url
        )
        return head, body

    def response_began(self, head: ResponseHead, length: int | None) -> Relay | None:
        """The final head came: from here on the answer is relayed, the way that is returned.

        None: the answer is dropped, for the request went elsewhere, or ended otherwise.
        """
        attempt, client, known, plane = self._attempt, self._client, self._known, self._plane
        assert attempt is not None  # noqa: S101 - no answer without an attempt
        status = head.status
        busy_s = None if status < 400 else head.retry_after_s
        actions = plane.dispatcher.headers_received(attempt, status, plane.now(), busy_s)
        if attempt.request.attempt is not attempt:
            self._attempt = self._upstream = None
            plane.perform(actions)
            return None
        if client.writing_blocked:
            self.pause()
        self._release_body()
        way, framing, until_close = way_to_client(known.head.minor, head, length)
        if until_close:
            self._close_after = True
        answer_head = b"HTTP/1.1 %d %b%b%b\r\nx-pointsman-replica: %b%b%b\r\n\r\n" % (
            head.status,
            head.reason,
            head.lines,
            framing,
            attempt.replica.name.encode(),
            b"" if head.has_request_id else b"\r\nx-request-id: " + self._request_id,
            self._connection_line(),
        )
        relay = self._relay = way(
            answer_head, client.write, self._tell_progress, event_stream=head.event_stream
        )
        return relay

    def response_ended(self) -> None:
        """The answer is complete."""
        if self._relay is not None:
            self._relay.end()
        attempt, plane = self._attempt, self._plane
        assert attempt is not None  # noqa: S101 - no answer without an attempt
        self._attempt = self._upstream = None
        actions = plane.dispatcher.attempt_ended(attempt, plane.now())
        self._ended()
        self._client.exchange_done(keep_alive=not self._close_after)
        plane.perform(actions)

    def attempt_failed(self, attempt: Attempt, failure: Failure, *, at_boundary: bool) -> None:
        """The attempt broke."""
        if self._relay is not None:
            self._relay.flush()
        self._attempt = self._upstream = None
        self._at_boundary = at_boundary
        plane = self._plane
        plane.perform(plane.dispatcher.attempt_failed(attempt, failure, plane.now()))

    # -- inside -------------------------------------------------------------------------------

    def _ended(self) -> None:
        """Let go of what holds us: a cycle would have to wait for the collector."""
        self._request = None
        relay, self._relay = self._relay, None
        if relay is not None:
            self._plane.sent_bytes_total += relay.sent_bytes

    def _tell_pause(self, *, paused: bool) -> None:
        attempt, plane = self._attempt, self._plane
        if attempt is not None:
            plane.dispatcher.client_paused(attempt, plane.now(), paused=paused)

    def _tell_progress(self, tokens: int) -> None:
        """Tell the dispatcher of tokens streamed; others may have waited for the first one."""
        attempt, plane = self._attempt, self._plane
        if attempt is not None:
            actions = plane.dispatcher.progress(attempt, tokens, plane.now())
            if actions:
                plane.perform(actions)

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
