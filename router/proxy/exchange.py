"""One request on a client connection, from its complete body to the end of its answer.

An exchange is what performs the dispatcher's actions for one request: it sends attempts, relays
the answer, refuses, aborts, cancels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from router.api.body import MalformedBodyError
from router.api.errors import error_body, error_event
from router.api.one_token import PATHS as WARM_UP_PATHS
from router.api.routes import Dialect
from router.continuation.continuation import Ending
from router.continuation.resume import Resume
from router.core.request import Failure, Request
from router.proxy.answers import Answer
from router.proxy.continuing import CONTINUED, ENDED, FAILED, GONE
from router.proxy.decision_line import decision_line
from router.proxy.forwarding import answer_head, forwarded_head
from router.proxy.relay import Relay, stream_to_client, way_to_client
from router.proxy.tapped import TappedRelay
from router.proxy.understanding import understand
from router.proxy.usage import learn_usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.actions import Abort, Refuse
    from router.core.replica import Replica
    from router.core.request import Attempt
    from router.http1.response import BodyKind, ResponseHead
    from router.proxy.continuing import ContinuableAnswer
    from router.proxy.heads import KnownRequest
    from router.proxy.sides import Client, Plane
    from router.proxy.upstream import UpstreamConnection

_MAX_REQUEST_ID_BYTES = 128


class Exchange:
    """One request and its answer.

    Args:
        plane: The data plane.
        client: The connection that the request came on.
        known: Its head, and what follows from it.
        body: Its whole body; the plane counts its bytes as held until they are released.
    """

    __slots__ = (
        "_answer",
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
        self._answer: ContinuableAnswer | None = None
        """What lets a stream go on elsewhere, as long as it may."""
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
        if facts.streamed:
            self._answer = plane.continuations.open(self._known.path, body)
        now = plane.now()
        request_id = self._request_id.decode("latin-1")
        request = self._request = Request(request_id, facts, now, self)
        plane.perform(plane.dispatcher.request_arrived(request, now))
        if facts.cached and self._known.path in WARM_UP_PATHS:
            plane.hot.saw(facts, self._known.path, body)

    def client_gone(self) -> None:
        """The client left."""
        self._release_body()
        if self._request is not None:
            plane = self._plane
            plane.perform(plane.dispatcher.client_gone(self._request, plane.now()))
            self._ended(GONE)

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

    def send(self, attempt: Attempt, *, continues: bool) -> None:
        """Send the request to the attempt's replica; ``continues``: one for the answer's rest."""
        self._attempt = attempt
        if not continues or self._go_on(attempt):
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
        self._ended(FAILED)
        self._answer_error(action.status, action.code, action.message, action.retry_after_s)

    def abort(self, action: Abort) -> None:
        """End the answer so that the client sees that it is incomplete, unless it is not."""
        relay, answer = self._relay, self._answer
        if relay is not None:
            ending = answer.ending() if answer is not None else None
            if ending is not None:
                relay.say(ending)
                relay.end()
                self._done(ENDED)
                return
            event = error_event(self._dialect, action.code, action.message)
            relay.interrupt(event, at_boundary=self._at_boundary)
        self._ended(FAILED)
        self._client.break_off(reset=self._known.head.minor == 0)

    # -- Recipient of the response ------------------------------------------------------------

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """Head and body as they go to the replica; ``connection`` carries them."""
        self._upstream = connection
        body, target = self.asked(connection.replica.engine)
        return self.head(connection.replica, len(body), target), body

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
        if actions:
            plane.perform(actions)
        if client.writing_blocked:
            self.pause()
        answer = self._answer
        if answer is not None:
            if answer.relayed:
                return self._next_stream(answer, attempt, head)
            answer = self._as_stream(answer, attempt, head)
        self._release_body()
        minor, way = known.head.minor, Relay
        if answer is not None:
            framing, until_close = stream_to_client(minor)
        else:
            way, framing, until_close = way_to_client(minor, head, length)
        if until_close:
            self._close_after = True
        lines = self._connection_line()
        if known.terms.explained:
            lines += decision_line(plane.dispatcher.decisions, attempt)
        begin = answer_head(head, framing, attempt.replica.name, self._request_id, lines)
        if answer is not None:
            return self._stream(answer, attempt, begin, head.body)
        relay = self._relay = way(
            begin, self.writer(), self._tell_progress, event_stream=head.event_stream
        )
        return relay

    def response_ended(self) -> None:
        """The replica ended its answer."""
        attempt, answer = self._attempt, self._answer
        assert attempt is not None  # noqa: S101 - no answer without an attempt
        left = answer.left() if answer is not None else b""
        if left is None:
            self.attempt_failed(attempt, Failure.GAVE_UP, at_boundary=True)
        else:
            self._complete(attempt, left, CONTINUED)

    def attempt_failed(self, attempt: Attempt, failure: Failure, *, at_boundary: bool) -> None:
        """The attempt broke."""
        plane, answer = self._plane, self._answer
        if self._relay is not None:
            self._relay.flush()
            ending = answer.ending() if answer is not None else None
            if ending is not None:
                self._complete(attempt, ending, ENDED)
                return
            if answer is not None and self._request is not None:
                self._request.continuable = answer.may_go_on()
        self._attempt = self._upstream = None
        self._at_boundary = at_boundary
        plane.perform(plane.dispatcher.attempt_failed(attempt, failure, plane.now()))

    # -- what is sent ---------------------------------------------------------------------------

    def asked(self, engine: str | None) -> tuple[bytes, bytes | None]:
        """The body to send, and the target that takes the place of the client's, if one does.

        Args:
            engine: Of the replica that it goes to.
        """
        if self._answer is not None:
            return self._answer.request(engine)
        return self._body, None

    def writer(self) -> Callable[[bytes], None]:
        """What sends bytes of the answer to the client."""
        return self._client.write

    def head(
        self, replica: Replica, body_bytes: int, target: bytes | None, own_id: bytes | None = None
    ) -> bytes:
        """The head that goes with it, as :func:`forwarded_head`."""
        return forwarded_head(
            self._known,
            body_bytes,
            self._request_id,
            self._client.address,
            replica.url,
            target=target,
            own_id=own_id,
        )

    # -- Listener of a stream that can go on elsewhere ----------------------------------------

    def stream_broke(self) -> None:
        """The engine gave up inside of its stream."""
        if self._upstream is not None:
            self._upstream.fail(Failure.GAVE_UP)

    def stream_ended(self) -> None:
        """The answer is complete, though the engine goes on."""
        if self._upstream is not None:
            self._upstream.abort()
            self.response_ended()

    # -- inside -------------------------------------------------------------------------------

    def _stream(
        self, answer: ContinuableAnswer, attempt: Attempt, begin: bytes, kind: BodyKind
    ) -> TappedRelay:
        """The way of a stream that can go on elsewhere, from one replica."""
        if self._request is not None:
            self._request.continuable = True
        relay = self._relay = TappedRelay(
            begin,
            self.writer(),
            partial(self._tell_progress_of, attempt),
            continuation=answer.continuation,
            listener=self,
            kind=kind,
            chunked=self._known.head.minor == 1,
        )
        return relay

    def _as_stream(
        self, answer: ContinuableAnswer, attempt: Attempt, head: ResponseHead
    ) -> ContinuableAnswer | None:
        """What lets an answer go on elsewhere; None: it cannot, and is relayed as any other."""
        if not answer.begin(attempt.replica.engine, head):
            answer.close(FAILED)
            self._answer = None
        return self._answer

    def _go_on(self, attempt: Attempt) -> bool:
        """Go on with an answer that broke; False: that needs no replica, or cannot be."""
        plane, relay, answer = self._plane, self._relay, self._answer
        planned = answer.next(attempt.replica.engine) if answer is not None else None
        if isinstance(planned, Resume):
            return True
        self._attempt = None
        complete = relay is not None and isinstance(planned, Ending)
        actions = plane.dispatcher.continuation_settled(attempt, plane.now(), complete=complete)
        if relay is not None and isinstance(planned, Ending):
            relay.say(planned.data)
            relay.end()
            self._done(ENDED)
        plane.perform(actions)
        return False

    def _next_stream(
        self, answer: ContinuableAnswer, attempt: Attempt, head: ResponseHead
    ) -> Relay | None:
        """A replica answers to a request for the rest of an answer."""
        if not answer.goes_on(head):
            self.attempt_failed(attempt, Failure.PROTOCOL, at_boundary=True)
            return None
        if self._relay is not None:
            self._plane.sent_bytes_total += self._relay.sent_bytes
            self._relay.let_go()
        return self._stream(answer, attempt, b"", head.body)

    def _complete(self, attempt: Attempt, left: bytes, outcome: str) -> None:
        """The client has all of its answer, but for what is left to say."""
        plane = self._plane
        if self._relay is not None:
            self._relay.say(left)
            self._relay.end()
            learn_usage(plane.dispatcher.estimator.token_ratio, attempt, self._relay.last)
        self._attempt = self._upstream = None
        actions = plane.dispatcher.attempt_ended(attempt, plane.now())
        self._done(outcome)
        plane.perform(actions)

    def _done(self, outcome: str) -> None:
        """The client has all of its answer."""
        self._ended(outcome)
        self._client.exchange_done(keep_alive=not self._close_after)

    def _ended(self, outcome: str) -> None:
        """Let go of what holds us: a cycle would have to wait for the collector.

        Args:
            outcome: What became of the answer, if it broke.
        """
        self._request = None
        relay, self._relay = self._relay, None
        if relay is not None:
            self._plane.sent_bytes_total += relay.sent_bytes
            relay.let_go()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close(outcome)

    def _tell_pause(self, *, paused: bool) -> None:
        attempt, plane = self._attempt, self._plane
        if attempt is not None:
            plane.dispatcher.client_paused(attempt, plane.now(), paused=paused)

    def _tell_progress_of(self, attempt: Attempt, tokens: int) -> None:
        """As :meth:`_tell_progress`; a stream that broke may tell of its last ones too late."""
        if attempt is self._attempt:
            self._tell_progress(tokens)

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
