"""The load client: one process, asyncio.Protocol on uvloop, cheap enough to saturate a router.

Three loads:

``plain``
    Each connection sends an unstreamed chat, waits for the answer and sends the next at once.
``paced``
    The same at a fixed pace well below saturation, for latencies.
``chunk``
    Each connection holds one stream; chunks are counted over a window in the middle of it.

While the window lasts it also takes the CPU time of the process tree ``--pid``. One JSON object
on standard output is the result.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from dataclasses import asdict, dataclass, field

import httptools
import uvloop

from tests.bench.cpu import cpu_s, process_tree

SENTENCE = "the train waits at the points until the signal shows clear and the track is free"
PROMPT_WORDS = 520
DELAY_SAMPLE = 16
"""One read in so many is searched for its time stamp."""
STAMP = re.compile(rb'"chatcmpl-(\d{19})"')


@dataclass
class Result:
    """What one load saw in its window."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    window_s: float = 0.0
    cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """Whole requests (paced), or chunks from the replica's write to here (chunk)."""


def request_bytes(authority: str, number: int, max_tokens: int, *, streamed: bool) -> bytes:
    """A chat completion request of about 520 words."""
    words = SENTENCE.split()
    prompt = [words[(number + i * 7) % len(words)] for i in range(PROMPT_WORDS)]
    body = json.dumps(
        {
            "model": "fast-fake",
            "messages": [
                {"role": "system", "content": "You are a pointsman."},
                {"role": "user", "content": " ".join(prompt)},
            ],
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "stream": streamed,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {authority}\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\n"
        "User-Agent: OpenAI/Python 1.99.0\r\nAuthorization: Bearer sk-0123456789abcdef\r\n"
        "X-Stainless-Lang: python\r\nX-Stainless-Runtime: CPython\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One connection that sends the same request again and again."""

    def __init__(self, result: Result, request: bytes, pace_s: float | None) -> None:
        self._result = result
        self._request = request
        self._pace_s = pace_s
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_s = 0.0
        self._done = False

    def connection_made(self, transport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done:
            self._result.errors += 1

    def stop(self) -> None:
        """Close; what is under way is of no interest any more."""
        self._done = True
        self._transport.close()

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self._result.errors += 1
        self._result.requests += 1
        if self._pace_s is None:
            self._send()
            return
        now_s = time.perf_counter()
        self._result.latencies_ms.append((now_s - self._sent_s) * 1000)
        self._loop.call_later(max(0.0, self._sent_s + self._pace_s - now_s), self._send)

    def _send(self) -> None:
        if not self._done:
            self._sent_s = time.perf_counter()
            self._transport.write(self._request)


class StreamClient(asyncio.Protocol):
    """One connection that holds one stream and counts its chunks."""

    def __init__(self, result: Result, request: bytes) -> None:
        self._result = result
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._reads = 0
        self._done = False

    def connection_made(self, transport) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._result.chunks += data.count(b'"chat.completion.chunk"')
        self._reads += 1
        if self._reads == 1 and not data.startswith(b"HTTP/1.1 200 "):
            self._result.errors += 1
        if data.endswith(b"\r\n0\r\n\r\n"):  # over before its window
            self._result.errors += 1
        if self._reads % DELAY_SAMPLE == 0:
            stamp = STAMP.search(data)
            if stamp is not None:
                delay_ns = time.monotonic_ns() - int(stamp[1])
                self._result.latencies_ms.append(delay_ns / 1e6)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done:
            self._result.errors += 1

    def stop(self) -> None:
        """Leave in mid-stream."""
        self._done = True
        self._transport.close()


async def run(options: argparse.Namespace) -> Result:
    """Carry the load for warm-up and window; the result is about the window alone."""
    loop = asyncio.get_running_loop()
    result = Result()
    authority = f"127.0.0.1:{options.port}"
    clients: list[Client | StreamClient] = []
    ramp_s = options.warmup_s / 2
    for number in range(options.connections):
        streamed = options.load == "chunk"
        tokens = 1_000_000 if streamed else 64
        request = request_bytes(authority, number, tokens, streamed=streamed)
        pace_s = options.connections / options.rate if options.load == "paced" else None
        made = StreamClient(result, request) if streamed else Client(result, request, pace_s)
        await loop.create_connection(lambda made=made: made, "127.0.0.1", options.port)
        clients.append(made)
        await asyncio.sleep(ramp_s / options.connections)
    await asyncio.sleep(options.warmup_s - ramp_s)
    pids = process_tree(options.pid) if options.pid else []
    requests, chunks = result.requests, result.chunks
    result.latencies_ms.clear()
    used_s, began_s = cpu_s(pids), time.perf_counter()
    await asyncio.sleep(options.window_s)
    result.cpu_s, result.window_s = cpu_s(pids) - used_s, time.perf_counter() - began_s
    result.requests -= requests
    result.chunks -= chunks
    for client in clients:
        client.stop()
    await asyncio.sleep(0.05)  # let the closes go out before the process ends
    return result


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("load", choices=["plain", "paced", "chunk"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pid", type=int, default=0, help="root of the tree whose CPU is taken")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second (paced)")
    parser.add_argument("--warmup-s", type=float, default=1.0)
    parser.add_argument("--window-s", type=float, default=3.0)
    print(json.dumps(asdict(uvloop.run(run(parser.parse_args())))))


if __name__ == "__main__":
    main()
