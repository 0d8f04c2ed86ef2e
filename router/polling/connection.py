"""One connection over which a replica is asked, one question at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from router.http1.body import LengthBody, UntilClose
from router.http1.chunked import ChunkedBody
from router.http1.errors import ProtocolError
from router.http1.fields import HEAD_END
from router.http1.memory import HeadMemory
from router.http1.response import BodyKind, ResponseHead, parse_response_head

if TYPE_CHECKING:
    from router.http1.body import Body

MAX_HEAD_BYTES = 64 * 1024
_VERSION = b"HTTP/1."


class Blame(Enum):
    """What a failed look says of the replica."""

    REFUSED = "refused"
    """Nobody listens there."""

    UNCLEAR = "unclear"
    """It was slow, hung up, or spoke no HTTP; once may be chance."""

    OURS = "ours"
    """The router ran out of something; it says nothing of the replica."""


class LookFailedError(Exception):
    """No answer; ``str()`` is the reason in a few words, the same each time."""

    def __init__(self, reason: str, blame: Blame = Blame.UNCLEAR) -> None:
        super().__init__(reason)
        self.blame = blame


class HungUpError(LookFailedError):
    """The connection closed before any byte of an answer; on one that was kept, try another."""


@dataclass(slots=True, frozen=True)
class Answer:
    """An HTTP answer of whatever status."""

    head: ResponseHead
    body: bytes

    @property
    def status(self) -> int:
        """The status."""
        return self.head.status

    @property
    def server(self) -> str:
        """The ``Server`` header; empty when there is none."""
        return (self.head.field(b"server") or b"").decode("latin-1")

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def absent(self) -> bool:
        """Whether the server says that it has no such endpoint."""
        return self.status in {404, 405, 501}


def remembered_heads(max_heads: int) -> HeadMemory[ResponseHead]:
    """A memory for the heads of answers to GET requests."""

    def read(block: bytes) -> tuple[ResponseHead, int | None]:
        head = parse_response_head(block, b"GET")
        return head, head.length

    return HeadMemory(read, max_heads)


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection for GET requests.

    Args:
        loop: The event loop.
        heads: Reads the heads of answers.
        max_page_bytes: A longer answer is a failure.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        heads: HeadMemory[ResponseHead],
        max_page_bytes: int,
    ) -> None:
        self._loop = loop
        self._heads = heads
        self._max_page_bytes = max_page_bytes
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._waiter: asyncio.Future[Answer] | None = None
        self._buffer = b""
        self._head: ResponseHead | None = None
        self._body: Body | None = None
        self._pieces: list[bytes] = []
        self._page_bytes = 0
        self.usable = False
        """Whether it is open, and may be asked again."""

    async def ask(self, request: bytes, deadline_s: float) -> Answer:
        """Send a request and wait for the answer, until ``deadline_s`` on the loop's clock.

        Raises:
            LookFailedError: There was no whole answer.
            TimeoutError: There was none in time.
        """
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        # Half as dear as asyncio.timeout(), which makes its own objects for each look.
        timer = self._loop.call_at(deadline_s, self._fail, TimeoutError())
        self._transport.write(request)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None
            if not waiter.done() or waiter.cancelled():
                self.close()

    def close(self) -> None:
        """Drop the connection."""
        self.usable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer came."""
        try:
            if self._waiter is None:
                self.close()
            elif self._body is None:
                self._read_head(self._buffer + data)
            else:
                self._read_body(self._body, data)
        except ProtocolError:
            self._fail(LookFailedError("the answer is no HTTP"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; that may be the end of an answer."""
        self.usable = False
        if isinstance(self._body, UntilClose) and exc is None:
            self._complete(keep=False)
        elif self._head is not None or self._buffer:
            self._fail(LookFailedError("the answer was cut off"))
        else:
            self._fail(HungUpError("it closed the connection without an answer"))

    def _read_head(self, data: bytes) -> None:
        end = data.find(HEAD_END, 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(data) >= MAX_HEAD_BYTES or data[:7] != _VERSION[: len(data)]:
                msg = "This is no response head, or one that is too long."
                raise ProtocolError(msg)
            self._buffer = data
            return
        self._buffer = b""
        head, length = self._heads.read(data[: end + 4])
        rest = data[end + 4 :]
        if head.status < 200:
            if rest:
                self._read_head(rest)
            return
        self._head = head
        if head.body is BodyKind.NONE or length == 0:
            self._complete(keep=head.keep_alive and not rest)
            return
        if length is not None and length > self._max_page_bytes:
            self._too_long()
            return
        self._body = _body(head.body, length)
        if rest:
            self._read_body(self._body, rest)

    def _read_body(self, body: Body, data: bytes) -> None:
        kept = len(self._pieces)
        if isinstance(body, ChunkedBody):
            end = body.decode(data, self._pieces)
        else:
            end = body.scan(data)
            self._pieces.append(data if end < 0 else data[:end])
        self._page_bytes += sum(map(len, self._pieces[kept:]))
        if self._page_bytes > self._max_page_bytes:
            self._too_long()
        elif end >= 0 and self._head is not None:
            self._complete(keep=self._head.keep_alive and end == len(data))

    def _complete(self, *, keep: bool) -> None:
        head, waiter = self._head, self._waiter
        page = b"".join(self._pieces)
        self._head = self._body = None
        self._pieces = []
        self._page_bytes = 0
        if not keep:
            self.close()
        if head is not None and waiter is not None and not waiter.done():
            waiter.set_result(Answer(head, page))

    def _too_long(self) -> None:
        self._fail(LookFailedError(f"the answer is longer than {self._max_page_bytes} bytes"))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _body(kind: BodyKind, length: int | None) -> Body:
    if kind is BodyKind.LENGTH:
        return LengthBody(length or 0)
    return ChunkedBody() if kind is BodyKind.CHUNKED else UntilClose()
