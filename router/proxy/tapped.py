"""The way of a stream that can go on elsewhere: what it says is remembered as it passes.

The client gets whole events only, each in whole chunks, so that another stream may follow at any
time. What the continuation leaves as it is goes on as it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from router.http1.chunked import LAST_CHUNK, ChunkedBody, as_chunk, whole_chunk_insides
from router.http1.response import BodyKind
from router.proxy.relay import EVENT, Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.continuation.continuation import Continuation

_INSIDE = whole_chunk_insides()


class Listener(Protocol):
    """Who is told what a stream says of itself."""

    def stream_broke(self) -> None:
        """The engine gave up inside of the stream."""

    def stream_ended(self) -> None:
        """The answer is complete, though the engine goes on."""


class TappedRelay(Relay):
    """Passes one replica's stream by way of the continuation.

    Args:
        head: The answer's head; nothing, if the client has it from an earlier replica.
        write: Sends bytes to the client.
        tell: Told of streamed tokens.
        continuation: Whose next stream it is.
        listener: Told of breaks and ends inside of the stream.
        kind: How the replica frames it.
        chunked: Whether the client takes chunks.
    """

    __slots__ = ("_chunked", "_decoder", "_listener", "_pass", "_stream", "_to_client")

    def __init__(
        self,
        head: bytes,
        write: Callable[[bytes], None],
        tell: Callable[[int], None],
        *,
        continuation: Continuation,
        listener: Listener,
        kind: BodyKind,
        chunked: bool,
    ) -> None:
        super().__init__(head, write, tell, event_stream=True)
        self._to_client = write
        self._stream = continuation.stream
        self._listener = listener
        self._pass = continuation.passed
        self._chunked = chunked
        self._decoder = ChunkedBody() if kind is BodyKind.CHUNKED else None
        if chunked and self._decoder is not None:
            self.direct = True
            self.write = self._pass_chunk

    def take(self, data: bytes) -> None:
        """As :meth:`Relay.take`."""
        if self._decoder is not None:
            pieces: list[bytes] = []
            self._decoder.decode(data, pieces)
            data = b"".join(pieces)
        if not data:
            return
        self.tokens += data.count(EVENT)
        self.say(self._pass(data))
        self._look()
        if self.tokens >= self.tell_at:
            self.tell_progress()

    def say(self, data: bytes) -> None:
        """Send whole events, framed for the client; may be nothing."""
        if not data:
            return
        if self._chunked:
            data = as_chunk(data)
        if self._head:
            data = self._head + data
            self._head = b""
        self._to_client(data)
        self.sent_bytes += len(data)

    def flush(self) -> None:
        """As :meth:`Relay.flush`."""
        if self._head:
            head, self._head = self._head, b""
            self._to_client(head)
            self.sent_bytes += len(head)

    def end(self) -> None:
        """As :meth:`Relay.end`; the last chunk says so."""
        self.flush()
        if self._chunked:
            self._to_client(LAST_CHUNK)
            self.sent_bytes += len(LAST_CHUNK)
        if self.tokens:
            self.tell_progress()

    def interrupt(self, event: bytes, *, at_boundary: bool) -> None:
        """As :meth:`Relay.interrupt`; there is room everywhere."""
        del at_boundary
        self.say(event)

    def let_go(self) -> None:
        """The stream is over: refer to itself no more, or the collector would be needed."""
        self.write = self._to_client

    def _pass_chunk(self, chunk: bytes) -> None:
        """Pass on a whole chunk, which the connection counts as sent."""
        events = chunk[_INSIDE[len(chunk)]]
        passed = self._pass(events)
        if passed is events:
            self._to_client(chunk)
            return
        # What follows is done for each token whose id is taken out again.
        if passed:
            framed = as_chunk(passed)
            self._to_client(framed)
            self.sent_bytes += len(framed)
        self.sent_bytes -= len(chunk)
        stream = self._stream
        if stream.broken or stream.ended:
            self._look()

    def _look(self) -> None:
        """Look whether the stream said that it is over; afterwards it may be somebody else's."""
        if self._stream.broken:
            self._listener.stream_broke()
        elif self._stream.ended:
            self._listener.stream_ended()
