"""One streamed request of a client that wants every byte, and what became of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from tests.fakes.raw_client import request

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(slots=True, frozen=True)
class Ask:
    """What is asked for."""

    path: str
    body: bytes

    def with_priority(self, priority: int) -> Ask:
        """The same, at another priority; lower is more urgent."""
        return Ask(self.path, self.body[:-1] + b', "priority": %d}' % priority)


@dataclass(slots=True, frozen=True)
class Told:
    """What an answer says, however it was cut into chunks."""

    text: str
    finish_reason: str | None
    usage: tuple[int, ...]


class Ending(StrEnum):
    """What became of a request."""

    EQUAL = "equal"
    """Complete, and the answer that an undisturbed replica gives."""
    ALTERED = "altered"
    """Complete, and another answer."""
    REFUSED = "refused"
    """429 or 503 before anything else was said."""
    BROKEN = "broken"
    """It began and did not end well, or the answer was another error."""
    LEFT = "left"
    """The client reset its connection on purpose."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One request, seen from its client; times on the clock of the event loop."""

    ending: Ending
    began_s: float
    ended_s: float
    first_s: float | None
    """When the first event came."""
    longest_gap_s: float
    """Longest time between two events."""
    replica: str
    """Who began the answer."""
    status: int
    detail: str
    """Of what is neither equal nor left: the end of what came."""

    @property
    def ttft_s(self) -> float | None:
        """Time to the first event."""
        return None if self.first_s is None else self.first_s - self.began_s


def ask(number: int, tokens: int, *, path: str = CHAT, words: int = 12) -> Ask:
    """A request of its own for each number, with an answer of ``tokens`` tokens."""
    prompt = f"Number {number}:" + " time house" * (words // 2)
    asked = (
        {"prompt": prompt}
        if path == COMPLETIONS
        else {"messages": [{"role": "user", "content": prompt}]}
    )
    fields = {"model": "m", "stream": True, "max_tokens": tokens, "min_tokens": tokens}
    return Ask(
        path, json.dumps(fields | {"stream_options": {"include_usage": True}} | asked).encode()
    )


class StreamClient(asyncio.Protocol):
    """Asks once on a connection of its own and keeps when what came.

    Args:
        asked: The request.
        leave_after: So many events are enough: then it resets the connection. None: all.
    """

    def __init__(self, asked: Ask, leave_after: int | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._asked = asked
        self._leave_after = leave_after
        self._events = 0
        self._left = False
        self._last_s: float | None = None
        self.received = bytearray()
        self.began_s = self._clock()
        self.first_s: float | None = None
        self.longest_gap_s = 0.0
        self.over: asyncio.Future[None] = loop.create_future()
        self.begun: asyncio.Event = asyncio.Event()

    def connection_made(self, transport) -> None:
        self._transport = transport
        transport.write(request("POST", self._asked.path, self._asked.body, "Connection: close"))
        if self._leave_after == 0:
            self._leave()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"data: " not in data:
            return
        now = self._clock()
        if self._last_s is None:
            self.first_s = now
        else:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last_s)
        self._last_s = now
        self._events += data.count(b"data: ")
        self.begun.set()
        if self._leave_after is not None and self._events >= self._leave_after:
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self.begun.set()
        if not self.over.done():
            self.over.set_result(None)

    def abandon(self) -> None:
        """Give up waiting; what came is judged as it is."""
        self._transport.abort()

    def outcome(self, wanted: Told) -> Outcome:
        """Judge what came."""
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1]) if head.startswith(b"HTTP/1.1 ") else 0
        ending = Ending.LEFT if self._left else judge(status, rest, wanted)
        good = ending in {Ending.EQUAL, Ending.LEFT}
        name = head.lower().partition(b"x-pointsman-replica: ")[2].partition(b"\r\n")[0]
        return Outcome(
            ending=ending,
            began_s=self.began_s,
            ended_s=self._clock(),
            first_s=self.first_s,
            longest_gap_s=self.longest_gap_s,
            replica=name.decode(),
            status=status,
            detail="" if good else repr(bytes(self.received[-300:])),
        )

    def _leave(self) -> None:
        self._left = True
        self._transport.abort()


def judge(status: int, body: bytes, wanted: Told) -> Ending:
    """What an answer is to somebody who wants ``wanted``."""
    if status in {429, 503}:
        return Ending.REFUSED
    events, complete = dechunked(body)
    if status != 200 or not complete or not events.endswith(b"data: [DONE]\n\n"):
        return Ending.BROKEN
    return Ending.EQUAL if read(events) == wanted else Ending.ALTERED


def read(events: bytes) -> Told:
    """What a stream of server-sent events says.

    Raises:
        ValueError: They are none of an answer.
    """
    text, reasons, usage = "", [], ()
    for line in events.split(b"\n\n"):
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        for choice in chunk.get("choices", ()):
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            if choice["finish_reason"]:
                reasons.append(choice["finish_reason"])
        if chunk.get("usage"):
            usage = tuple(chunk["usage"][name] for name in USAGE)
    return Told(text, ",".join(reasons) or None, usage)


def dechunked(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether its end came."""
    content, at = bytearray(), 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end], 16)
        if size == 0:
            return bytes(content), body[end : end + 4] == b"\r\n\r\n"
        content += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return bytes(content), False


async def connect(url: str, asked: Ask, leave_after: int | None = None) -> StreamClient:
    """Ask on a new connection to ``url``."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: StreamClient(asked, leave_after), parts.hostname, parts.port
    )
    return client


async def unbroken(url: str, asked: Ask) -> Told:
    """The answer as a replica gives it that nobody disturbs."""
    client = await connect(url, asked)
    await client.over
    head, _, rest = bytes(client.received).partition(b"\r\n\r\n")
    events, complete = dechunked(rest)
    assert head.startswith(b"HTTP/1.1 200"), head
    assert complete
    return read(events)
