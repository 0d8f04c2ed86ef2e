"""An exchange whose stream may be asked of two replicas, until one of them begins to answer.

The head of an answer is kept back until its first byte comes: some engines send the head before
they have looked at the prompt, and from there on no other answer may follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from router.proxy.exchange import Exchange
from router.proxy.relay import Relay

if TYPE_CHECKING:
    from router.core.request import Attempt, Failure
    from router.http1.response import ResponseHead
    from router.proxy.heads import KnownRequest
    from router.proxy.sides import Client, Plane
    from router.proxy.upstream import UpstreamConnection


class HedgedExchange(Exchange):
    """As :class:`Exchange`, with a second try where the dispatcher asks for one."""

    __slots__ = ("_tries",)

    def __init__(self, plane: Plane, client: Client, known: KnownRequest, body: bytes) -> None:
        super().__init__(plane, client, known, body)
        self._tries: dict[Attempt, Try] = {}
        """Those of which nothing was relayed yet."""

    def send(self, attempt: Attempt, *, continues: bool) -> None:
        """As :meth:`Exchange.send`."""
        if continues or not attempt.request.facts.streamed:
            super().send(attempt, continues=continues)
            return
        self._attempt = attempt
        self.hedge(attempt)

    def hedge(self, attempt: Attempt) -> None:
        """Send the request to the attempt's replica, beside what was sent before."""
        one = self._tries[attempt] = Try(self, attempt)
        self._plane.pool.send(one, attempt)

    def cancel(self, attempt: Attempt) -> None:
        """As :meth:`Exchange.cancel`."""
        one = self._tries.pop(attempt, None)
        if one is None:
            super().cancel(attempt)
            return
        self._plane.pool.cancel_connecting(attempt)
        if one.connection is not None:
            one.connection.abort()
        self._forget(attempt)

    # -- what tries tell ----------------------------------------------------------------------

    def ask(self, one: Try, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """What to send over the connection of a try."""
        kept = self._upstream
        asked = self.request_bytes(connection)
        if one.attempt is not self._attempt:
            self._upstream = kept
        return asked

    def begin(self, one: Try, head: ResponseHead, length: int | None) -> Relay | None:
        """A try has an answer, the first or an error; as :meth:`Exchange.response_began`."""
        attempt, plane = one.attempt, self._plane
        del self._tries[attempt]
        if head.status < 400 and attempt.request.hedge is not None:
            plane.perform(plane.dispatcher.answer_begins(attempt, plane.now()))
        kept = self._attempt, self._upstream
        self._attempt, self._upstream = attempt, one.connection
        if self._answer is not None and attempt is not kept[0]:
            self._answer.request(attempt.replica.engine)  # the last one asked, and asked otherwise
        relay = self.response_began(head, length)
        if relay is None and attempt is not kept[0]:
            self._attempt, self._upstream = kept  # the first try goes on
        return relay

    def break_try(self, attempt: Attempt, failure: Failure) -> None:
        """A try failed before any of its answer was relayed."""
        del self._tries[attempt]
        self._forget(attempt)
        plane = self._plane
        plane.perform(plane.dispatcher.attempt_failed(attempt, failure, plane.now()))

    def _forget(self, attempt: Attempt) -> None:
        if attempt is self._attempt:
            self._attempt = self._upstream = None


class Try:
    """One of the two, towards its connection: the recipient of an answer.

    Args:
        exchange: Whose try it is.
        attempt: Its attempt.
    """

    __slots__ = ("_begun", "_exchange", "_waiting", "attempt", "connection", "method")

    def __init__(self, exchange: HedgedExchange, attempt: Attempt) -> None:
        self.attempt = attempt
        self.connection: UpstreamConnection | None = None
        self.method = exchange.method
        self._exchange = exchange
        self._begun = False
        self._waiting: FirstByte | None = None

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """As of any recipient."""
        self.connection = connection
        return self._exchange.ask(self, connection)

    def response_began(self, head: ResponseHead, length: int | None) -> Relay | None:
        """As of any recipient; errors are known at once, and are no answer to wait for."""
        if head.status >= 400:
            return self.begin(head, length)
        self._waiting = FirstByte(self, head, length)
        return self._waiting

    def begin(self, head: ResponseHead, length: int | None) -> Relay | None:
        """Hand the answer over to the exchange."""
        self._begun = True
        self._waiting = None  # a cycle would have to wait for the collector
        return self._exchange.begin(self, head, length)

    def response_ended(self) -> None:
        """As of any recipient; an answer may have no bytes at all."""
        if not self._begun and self._waiting is not None:
            self._waiting.take(b"")
        self._exchange.response_ended()

    def attempt_failed(self, attempt: Attempt, failure: Failure, *, at_boundary: bool) -> None:
        """As of any recipient."""
        if self._begun:
            self._exchange.attempt_failed(attempt, failure, at_boundary=at_boundary)
        else:
            self._exchange.break_try(attempt, failure)


class FirstByte(Relay):
    """Takes the first bytes of a try's answer; from there on its real relay does.

    Args:
        one: The try.
        head: Of its answer.
        length: Of its body, if that is known.
    """

    __slots__ = ("_length", "_response", "_to", "_try")

    def __init__(self, one: Try, head: ResponseHead, length: int | None) -> None:
        super().__init__(b"", _nobody, _nobody, event_stream=False)
        self._try = one
        self._response = head
        self._length = length

    def take(self, data: bytes) -> None:
        """As :meth:`Relay.take`."""
        connection = cast("UpstreamConnection", self._try.connection)
        relay = self._try.begin(self._response, self._length)
        if relay is None:
            connection.abort()
            return
        connection.redirect(relay)
        relay.last, relay.tell_at = self.last, self.tell_at
        if data:
            relay.take(data)


def _nobody(_: object) -> None:
    raise AssertionError("the first byte goes to the real relay")
