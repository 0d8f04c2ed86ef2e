"""Thousands of streams from one client process, each compared byte by byte.

The replicas make each stream from its seed, so the client knows what the direct stream would be.
Some streams may be left half-way. One JSON object on standard output is the result.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
from dataclasses import asdict, dataclass

import httptools
import uvloop

from tests.fakes.fast_replica import DONE_EVENT, as_last, event, seeded_stamp

CONNECT_AT_ONCE = 100


@dataclass
class Result:
    """What became of the streams."""

    complete: int = 0
    """Ended well and equal to the direct stream."""
    altered: int = 0
    """Ended well and not equal to it."""
    broken: int = 0
    """Ended in any other way."""
    left: int = 0
    """Left by the client on purpose."""
    bytes_received: int = 0


def digest(seed: int, events: int) -> bytes:
    """Of the body of the whole stream as its replica writes it."""
    made = hashlib.sha256()
    for position in range(events - 1):
        made.update(event(seeded_stamp(seed, position)))
    made.update(event(seeded_stamp(seed, events - 1), as_last()))
    made.update(DONE_EVENT)
    return made.digest()


class Stream(asyncio.Protocol):
    """One connection with one stream."""

    def __init__(self, result: Result, seed: int, events: int, leave_after: int | None) -> None:
        self._result = result
        self._seed = seed
        self._events = events
        self._leave_after = leave_after
        self._parser = httptools.HttpResponseParser(self)
        self._hash = hashlib.sha256()
        self._received = 0
        self._outcome: str | None = None
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        body = json.dumps(
            {
                "model": "fast-fake",
                "messages": [{"role": "user", "content": "Where to?"}],
                "stream": True,
                "max_tokens": self._events,
                "seed": self._seed,
            }
        ).encode()
        self._transport = transport
        transport.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self._result.bytes_received += len(data)
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._hash.update(data)
        self._received += len(data)
        if self._leave_after is not None and self._received >= self._leave_after:
            self._outcome = "left"
            self._transport.abort()

    def on_message_complete(self) -> None:
        if self._outcome is None and self._parser.get_status_code() == 200:
            same = self._hash.digest() == digest(self._seed, self._events)
            self._outcome = "complete" if same else "altered"
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        outcome = self._outcome or "broken"
        setattr(self._result, outcome, getattr(self._result, outcome) + 1)
        self.ended.set_result(None)


async def run(options: argparse.Namespace) -> Result:
    """Hold all streams at once; returns when the last has ended."""
    loop = asyncio.get_running_loop()
    result = Result()
    streams: list[Stream] = []

    async def open_one(number: int) -> None:
        leaves = options.leave_every and number % options.leave_every == 0
        made = Stream(result, options.first_seed + number, options.events, 500 if leaves else None)
        streams.append(made)
        await loop.create_connection(lambda: made, "127.0.0.1", options.port)

    for start in range(0, options.streams, CONNECT_AT_ONCE):
        numbers = range(start, min(start + CONNECT_AT_ONCE, options.streams))
        await asyncio.gather(*(open_one(number) for number in numbers))
    await asyncio.gather(*(stream.ended for stream in streams))
    return result


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--events", type=int, required=True, help="events of each stream")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--leave-every", type=int, default=0, help="every N-th leaves half-way")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asdict(uvloop.run(run(options)))))


if __name__ == "__main__":
    main()
