"""An exchange whose request may be two: one replica computes the prompt, another answers.

The client's answer is that of the decode leg, which is the exchange's attempt as any other. The
prefill leg is read for what links the two; an error of it may be the client's answer instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from router.api.usage import usage_of
from router.http1.chunked import ChunkedBody
from router.http1.fields import without_field
from router.http1.response import BodyKind
from router.proxy.exchange import Exchange
from router.proxy.relay import Relay
from router.split.usage import MARK, with_cached

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.request import Attempt, Failure
    from router.http1.response import ResponseHead
    from router.proxy.heads import KnownRequest
    from router.proxy.sides import Client, Plane
    from router.proxy.splits import Splits
    from router.proxy.upstream import UpstreamConnection
    from router.split.base import Legs

MOST_BYTES: Final = 16 * 1024 * 1024
"""A prefill replica's answer is not longer; the token ids of a prompt may be in it."""


class SplitExchange(Exchange):
    """As :class:`Exchange`, with a prefill leg where the dispatcher asks for one."""

    __slots__ = ("_aside", "_cached", "_decode", "_leg", "_legs", "_splits", "_target")

    def __init__(
        self, plane: Plane, client: Client, known: KnownRequest, body: bytes, splits: Splits
    ) -> None:
        super().__init__(plane, client, known, body)
        self._splits = splits
        self._legs: Legs | None = None
        """What the request at hand was made into; None: it is whole."""
        self._leg: PrefillLeg | None = None
        self._decode: bytes | None = None
        """What the decode replica is asked."""
        self._target: bytes | None = None
        self._cached: int | None = None
        """Tokens of the prompt that the prefill replica had in its cache, if it told."""
        self._aside: UpstreamConnection | None = None
        """The decode leg's, while an error of the prefill leg is weighed."""

    # -- actions of the dispatcher ------------------------------------------------------------

    def send(self, attempt: Attempt, *, continues: bool) -> None:
        """As :meth:`Exchange.send`."""
        self._legs = self._decode = self._cached = None
        super().send(attempt, continues=continues)

    def send_split(self, attempt: Attempt, prefill: Attempt, *, continues: bool) -> None:
        """Have the prompt computed by one replica, and the answer made by another.

        Args:
            attempt: The decode leg.
            prefill: The prefill leg.
            continues: Only the rest of an answer is asked for.
        """
        self._legs = self._decode = self._cached = None
        self._attempt = attempt
        if continues and not self._go_on(attempt):
            return
        plane = self._plane
        body, self._target = self.asked(attempt.replica.engine)
        legs = self._legs = self._splits.legs(body, prefill.replica, attempt.replica)
        if legs is None:
            plane.pool.send(self, attempt)
            plane.perform(plane.dispatcher.prefill_unusable(prefill, plane.now()))
            return
        leg = self._leg = PrefillLeg(self, prefill, legs.prefill_body, kept=not legs.at_once)
        plane.pool.send(leg, prefill)
        if legs.at_once:
            self._decode = legs.decode_body(b"")
            plane.pool.send(self, attempt)

    def cancel(self, attempt: Attempt) -> None:
        """As :meth:`Exchange.cancel`, of either leg."""
        leg, pool = self._leg, self._plane.pool
        if leg is not None and attempt is leg.attempt:
            self._leg = None
            pool.cancel_connecting(attempt)
            if leg.connection is not None:
                leg.connection.abort()
        elif attempt is self._attempt:
            super().cancel(attempt)
        else:
            pool.cancel_connecting(attempt)
            if self._aside is not None:
                self._aside.abort()

    # -- Recipient of the response ------------------------------------------------------------

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """As :meth:`Exchange.request_bytes`."""
        legs, body = self._legs, self._decode
        if legs is None or body is None:
            return super().request_bytes(connection)
        self._upstream = connection
        return self.leg_head(connection, body), body

    def response_began(self, head: ResponseHead, length: int | None) -> Relay | None:
        """As :meth:`Exchange.response_began`; an id that linked the legs is not the client's."""
        if self._legs is not None and self._legs.request_id is not None and head.has_request_id:
            lines = without_field(head.lines, b"x-request-id")
            head = replace(head, lines=lines, has_request_id=False)
        return super().response_began(head, length)

    def writer(self) -> Callable[[bytes], None]:
        """As :meth:`Exchange.writer`; cached tokens are counted where the prompt was computed."""
        write, cached = super().writer(), self._cached
        if cached is None:
            return write

        def write_counted(data: bytes) -> None:
            write(with_cached(data, cached) if MARK in data else data)

        return write_counted

    # -- what the prefill leg tells -----------------------------------------------------------

    def leg_head(self, connection: UpstreamConnection, body: bytes) -> bytes:
        """The head of either leg's request."""
        own_id = self._legs.request_id if self._legs is not None else None
        return self.head(connection.replica, len(body), self._target, own_id)

    def leg_refused(self, leg: PrefillLeg, head: ResponseHead, length: int | None) -> Relay | None:
        """The prefill replica answers with an error: it is the client's, or nobody's."""
        self._leg = None
        self._aside = self._upstream
        self._attempt, self._upstream = leg.attempt, leg.connection
        relay = self.response_began(head, length)
        self._aside = None
        return relay

    def leg_ended(self, leg: PrefillLeg, answer: bytes | None) -> None:
        """The prefill leg's answer is complete.

        Args:
            leg: Which one.
            answer: What it is; None if it was too long, or coded.
        """
        self._leg = None
        plane, legs, attempt = self._plane, self._legs, self._attempt
        now = plane.now()
        if legs is None or attempt is None or legs.at_once:
            plane.perform(plane.dispatcher.prefilled(leg.attempt, now))
            return
        self._decode = None if answer is None else legs.decode_body(answer)
        told = None if answer is None else usage_of(answer)
        self._cached = None if told is None else told.cached_tokens
        if self._decode is None:
            self._legs = None
            actions = plane.dispatcher.prefill_unusable(leg.attempt, now)
        else:
            actions = plane.dispatcher.prefilled(leg.attempt, now)
        plane.pool.send(self, attempt)
        plane.perform(actions)

    def leg_failed(self, attempt: Attempt, failure: Failure) -> None:
        """The prefill leg broke."""
        self._leg = None
        if self._relay is not None and self._answer is not None and self._request is not None:
            self._request.continuable = self._answer.may_go_on()
        plane = self._plane
        plane.perform(plane.dispatcher.attempt_failed(attempt, failure, plane.now()))


class PrefillLeg:
    """The recipient of a prefill replica's answer.

    Args:
        exchange: Whose leg it is.
        attempt: Its attempt.
        body: What is asked.
        kept: Whether the answer matters.
    """

    __slots__ = ("_body", "_collected", "_exchange", "_kept", "_refused", "attempt", "connection")

    method = b"POST"

    def __init__(
        self, exchange: SplitExchange, attempt: Attempt, body: bytes, *, kept: bool
    ) -> None:
        self.attempt = attempt
        self.connection: UpstreamConnection | None = None
        self._exchange = exchange
        self._body = body
        self._kept = kept
        self._collected: Collected | None = None
        self._refused = False

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """As of any recipient."""
        self.connection = connection
        return self._exchange.leg_head(connection, self._body), self._body

    def response_began(self, head: ResponseHead, length: int | None) -> Relay | None:
        """As of any recipient."""
        if head.status >= 400:
            self._refused = True
            return self._exchange.leg_refused(self, head, length)
        kept = self._kept and not head.coded
        self._collected = Collected(head.body, MOST_BYTES if kept else 0)
        return self._collected

    def response_ended(self) -> None:
        """As of any recipient."""
        if self._refused:
            self._exchange.response_ended()
        else:
            collected = self._collected
            self._exchange.leg_ended(self, None if collected is None else collected.whole())

    def attempt_failed(self, attempt: Attempt, failure: Failure, *, at_boundary: bool) -> None:
        """As of any recipient."""
        if self._refused:
            self._exchange.attempt_failed(attempt, failure, at_boundary=at_boundary)
        else:
            self._exchange.leg_failed(attempt, failure)


class Collected(Relay):
    """Keeps a body instead of passing it on.

    Args:
        kind: How it is framed.
        most_bytes: What is longer is not kept; 0: nothing is.
    """

    __slots__ = ("_decoder", "_left_bytes", "_pieces")

    def __init__(self, kind: BodyKind, most_bytes: int) -> None:
        super().__init__(b"", _nobody, _nobody, event_stream=False)
        self._decoder = ChunkedBody() if kind is BodyKind.CHUNKED else None
        self._pieces: list[bytes] = []
        self._left_bytes = most_bytes

    def take(self, data: bytes) -> None:
        """As :meth:`Relay.take`."""
        if self._left_bytes <= 0:
            return
        before = len(self._pieces)
        if self._decoder is not None:
            self._decoder.decode(data, self._pieces)
        else:
            self._pieces.append(data)
        self._left_bytes -= sum(map(len, self._pieces[before:]))
        if self._left_bytes <= 0:
            self._pieces.clear()

    def whole(self) -> bytes | None:
        """The body; None if it was not kept."""
        return b"".join(self._pieces) if self._left_bytes > 0 else None


def _nobody(_: object) -> None:
    raise AssertionError("nothing of it is relayed")
