"""The way of an answer's bytes to the client, chosen when the answer's head has come.

Most bytes go on as they came. :class:`ChunkRelay`, the way of nearly all token streams, is open to
the upstream connection: it writes a read that is one whole event past all methods and counts it
here (see :meth:`router.proxy.upstream.UpstreamConnection.data_received`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.http1.chunked import LAST_CHUNK, ChunkedBody, as_chunk
from router.http1.response import BodyKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.http1.response import ResponseHead

EVENT = b"data:"

# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_CHUNKED, _LENGTH, _NONE = BodyKind.CHUNKED, BodyKind.LENGTH, BodyKind.NONE

TOKENS_AT_ONCE = 16
"""Of how many streamed tokens the dispatcher is told at once, after the first read: telling it of
each costs as much as relaying it."""


class Relay:
    """Passes bytes on as they came.

    Args:
        head: The answer's head; it goes out with the first bytes of the body.
        write: Sends bytes to the client.
        tell: Told of streamed tokens: with the first bytes, then of several at once.
        event_stream: Whether the body is a stream of server-sent events, one for a token.
    """

    __slots__ = (
        "_event_stream",
        "_head",
        "_tell",
        "direct",
        "last",
        "sent_bytes",
        "single_below_bytes",
        "tell_at",
        "tokens",
        "write",
    )

    def __init__(
        self,
        head: bytes,
        write: Callable[[bytes], None],
        tell: Callable[[int], None],
        *,
        event_stream: bool,
    ) -> None:
        self._head = head
        self._tell = tell
        self._event_stream = event_stream
        self.write = write
        self.direct = False
        """Whether a whole chunk may be given to ``write``, past :meth:`take`, if it is counted."""
        self.last = b""
        """The last read of the answer, once it has ended: there engines tell what it took."""
        self.sent_bytes = 0
        self.tokens = 0
        """Tokens streamed of which nobody was told yet."""
        self.single_below_bytes = 0
        """A whole chunk shorter than this is taken for one event without looking into it."""
        self.tell_at = 0
        """With how many of them :meth:`tell_progress` is due."""

    def take(self, data: bytes) -> None:
        """Pass on bytes of the body, framing included, as the replica sent them."""
        if self._event_stream:
            self.tokens += data.count(EVENT)
        if self._head:
            data = self._head + data
            self._head = b""
        self.write(data)
        self.sent_bytes += len(data)
        if self.tokens >= self.tell_at:
            self.tell_progress()

    def count(self, chunk: bytes) -> int:
        """How many events a whole chunk holds; from now on shorter ones are known by that.

        The events of a stream differ in little but their text, so that two in one chunk are longer
        than one and a half of the shortest. Should that ever be wrong it is found out soon: each
        chunk with which :meth:`tell_progress` comes due is counted.
        """
        events = chunk.count(EVENT)
        if events:
            bound = len(chunk) * 3 // (2 * events)
            self.single_below_bytes = min(self.single_below_bytes or bound, bound)
        return events

    def flush(self) -> None:
        """Send the head, if no body came along with it."""
        if self._head:
            self._send(b"")

    def end(self) -> None:
        """The answer is complete."""
        if self._head:
            self.flush()
        if self.tokens:
            self.tell_progress()

    def interrupt(self, event: bytes, *, at_boundary: bool) -> None:
        """Put an event of the router's own into an event stream that broke, if there is room.

        Args:
            event: The event.
            at_boundary: Whether the framing that came allows one more piece.
        """
        if self._event_stream and at_boundary:
            self._send(event)

    def say(self, data: bytes) -> None:
        """Put bytes of the router's own at the end of the body; may be nothing."""
        if data:
            self._send(data)

    def let_go(self) -> None:
        """The answer is over, or goes on another way."""

    def tell_progress(self) -> None:
        """Tell of the tokens that nobody was told of yet."""
        tokens, self.tokens, self.tell_at = self.tokens, 0, TOKENS_AT_ONCE
        self._tell(tokens)

    def _send(self, data: bytes) -> None:
        if self._head:
            data = self._head + data
            self._head = b""
        self.write(data)
        self.sent_bytes += len(data)


class ChunkRelay(Relay):
    """Passes a chunked body on as it came, to a client that takes chunks."""

    __slots__ = ()

    def __init__(
        self,
        head: bytes,
        write: Callable[[bytes], None],
        tell: Callable[[int], None],
        *,
        event_stream: bool,
    ) -> None:
        super().__init__(head, write, tell, event_stream=event_stream)
        self.direct = event_stream

    def interrupt(self, event: bytes, *, at_boundary: bool) -> None:
        """As :meth:`Relay.interrupt`; the event is a chunk."""
        super().interrupt(as_chunk(event), at_boundary=at_boundary)


class ChunkingRelay(Relay):
    """Cuts a body that ends with its connection into chunks: the client's connection lives on."""

    __slots__ = ()

    def take(self, data: bytes) -> None:
        """As :meth:`Relay.take`; each read becomes a chunk."""
        super().take(as_chunk(data))

    def end(self) -> None:
        """As :meth:`Relay.end`; the last chunk says so."""
        self.flush()
        self._send(LAST_CHUNK)
        super().end()

    def interrupt(self, event: bytes, *, at_boundary: bool) -> None:
        """As :meth:`Relay.interrupt`; there is room after each read."""
        del at_boundary
        super().interrupt(as_chunk(event), at_boundary=True)


class PlainRelay(Relay):
    """Takes the chunks off a body, for a client of HTTP/1.0; the connection's end is its end."""

    __slots__ = ("_decoder",)

    def __init__(
        self,
        head: bytes,
        write: Callable[[bytes], None],
        tell: Callable[[int], None],
        *,
        event_stream: bool,
    ) -> None:
        super().__init__(head, write, tell, event_stream=event_stream)
        self._decoder = ChunkedBody()

    def take(self, data: bytes) -> None:
        """As :meth:`Relay.take`; what the chunks hold goes on."""
        pieces: list[bytes] = []
        self._decoder.decode(data, pieces)
        super().take(b"".join(pieces))

    def interrupt(self, event: bytes, *, at_boundary: bool) -> None:
        """As :meth:`Relay.interrupt`; there is room everywhere."""
        del at_boundary
        super().interrupt(event, at_boundary=True)


def stream_to_client(minor: int) -> tuple[bytes, bool]:
    """As the last two of :func:`way_to_client`, for a stream that may go on elsewhere."""
    return (b"\r\nTransfer-Encoding: chunked", False) if minor == 1 else (b"", True)


def way_to_client(
    minor: int, head: ResponseHead, length: int | None
) -> tuple[type[Relay], bytes, bool]:
    """How an answer's body goes to a client of HTTP/1.``minor``.

    Returns:
        The relay, the fields that tell the client of the framing, and whether the end of the
        client's connection is the end of the body.
    """
    kind = head.body
    if kind is _LENGTH or kind is _NONE:
        if length is None or head.status == 204:
            return Relay, b"", False
        return Relay, b"\r\nContent-Length: %d" % length, False
    chunked = kind is _CHUNKED
    if minor == 1:
        relay = ChunkRelay if chunked else ChunkingRelay
        return relay, b"\r\nTransfer-Encoding: chunked", False
    return (PlainRelay if chunked else Relay), b"", True
