"""A fake engine that costs next to nothing, so that a bench measures the router and not it.

It answers any POST in vLLM's shape: one JSON answer of about 600 bytes, or, when the body asks
for a stream, chunks of about 220 bytes, one each ``--gap-ms``. Each chunk's id carries the moment
it was written (monotonic nanoseconds, the same clock in all processes of a machine), so that a
client can tell how long it was under way; when the request names a ``seed`` it carries a number
that follows from seed and position, so that a client can tell what each byte must be.
``max_tokens`` of the request is the number of chunks.

Run it: ``python -m tests.fakes.fast_replica --port 8001``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time

import httptools
import uvloop

MODEL = "fast-fake"
MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')  # some routers rename it
SEED = re.compile(rb'"seed"\s*:\s*(\d+)')
WANTS_IDS = b'"return_token_ids":true'
KEEPS_KV = b'"do_remote_decode":true'
STREAMED = re.compile(rb'"stream"\s*:\s*true')

_CHUNK_HEAD = b'data: {"id":"chatcmpl-'
_CHUNK_TAIL = (
    b'","object":"chat.completion.chunk","created":1764000000,"model":"fast-fake",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null,"token_ids":null}]}\n\n'
)
_CHUNK_TAIL_WITH_ID = _CHUNK_TAIL.replace(b'"token_ids":null', b'"token_ids":[31337]')


def as_last(tail: bytes = _CHUNK_TAIL) -> bytes:
    """The end of the last event, which tells why the answer ends."""
    return tail.replace(b'"finish_reason":null', b'"finish_reason":"length"')


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: Mon, 24 Nov 2025 12:00:00 GMT\r\n"
    b"server: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def answer(content_type: str, body: bytes, status: str = "200 OK") -> bytes:
    """A whole answer with its length."""
    head = (
        f"HTTP/1.1 {status}\r\ndate: Mon, 24 Nov 2025 12:00:00 GMT\r\nserver: uvicorn\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


COMPLETION = answer(
    "application/json",
    b'{"id":"chatcmpl-9f0c5b6d2c7e4d0c8a5f1e2b3c4d5e6f","object":"chat.completion",'
    b'"created":1764000000,"model":"fast-fake","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"The points are set, the signal shows clear, and the train takes the '
    b"track with the fewest others on it; behind it the next one waits its turn at the platform, "
    b'as it should.","refusal":null,"annotations":null,"audio":null,"function_call":null,'
    b'"tool_calls":[],"reasoning_content":null},"logprobs":null,"finish_reason":"stop",'
    b'"stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":null,'
    b'"usage":{"prompt_tokens":702,"total_tokens":746,"completion_tokens":44,'
    b'"prompt_tokens_details":null}}',
)
PREFILLED = answer(
    "application/json",
    b'{"id":"chatcmpl-9f0c5b6d2c7e4d0c8a5f1e2b3c4d5e6f","object":"chat.completion",'
    b'"created":1764000000,"model":"fast-fake","choices":[],"kv_transfer_params":'
    b'{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[['
    + b",".join(b"%d" % block for block in range(45))
    + b']],"remote_engine_id":"e","remote_request_id":"r","remote_host":"h","remote_port":1}}',
)
MODELS = answer(
    "application/json",
    b'{"object":"list","data":[{"id":"fast-fake","object":"model","created":1764000000,'
    b'"owned_by":"vllm","root":"fast-fake","parent":null,"max_model_len":32768}]}',
)
HEALTH = answer("text/plain", b"")
NOT_FOUND = answer("application/json", b'{"detail":"Not Found"}', "404 Not Found")


DONE_EVENT = b"data: [DONE]\n\n"


def event(stamp: int, tail: bytes = _CHUNK_TAIL) -> bytes:
    """One event, stamped with a number of up to 19 digits."""
    return b"%b%019d%b" % (_CHUNK_HEAD, stamp, tail)


def seeded_stamp(seed: int, position: int) -> int:
    """The stamp of the event at ``position`` in the stream of a request that named a seed."""
    return seed * 1_000_000 + position


def chunk(data: bytes) -> bytes:
    """``data`` as one transfer chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def metrics_page(running: int) -> bytes:
    """A page of vLLM's shape and size: the few gauges in a sea of histogram buckets."""
    labels = 'engine="0",model_name="fast-fake"'
    lines = [
        f"vllm:num_requests_running{{{labels}}} {running}.0",
        f"vllm:num_requests_waiting{{{labels}}} 0.0",
        f"vllm:kv_cache_usage_perc{{{labels}}} {min(1.0, running / 256):.6f}",
        f"vllm:prefix_cache_queries_total{{{labels}}} 25000.0",
        f"vllm:prefix_cache_hits_total{{{labels}}} 9000.0",
        f"vllm:num_preemptions_total{{{labels}}} 0.0",
        f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="25000",{labels}}} 1.0',
    ]
    gauges = [f"# HELP {_name(line)} Of the engine.\n# TYPE {_name(line)} gauge" for line in lines]
    pairs = [text for pair in zip(gauges, lines, strict=True) for text in pair]
    half = len(_HISTOGRAMS) // 2
    return "\n".join([*_HISTOGRAMS[:half], *pairs, *_HISTOGRAMS[half:], ""]).encode()


def _name(line: str) -> str:
    return line.partition("{")[0]


def _histograms() -> list[str]:
    lines = []
    for number in range(28):
        name = f"vllm:request_stage_{number}_time_seconds"
        lines += [f"# HELP {name} Histogram of stage {number}.", f"# TYPE {name} histogram"]
        for edge in range(40):
            bound = 0.001 * 1.5**edge
            lines.append(
                f'{name}_bucket{{engine="0",le="{bound:.4f}",model_name="fast-fake"}} {edge * 7}.0'
            )
    return lines


_HISTOGRAMS = _histograms()


class Engine:
    """What all connections of one process share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, gap_s: float) -> None:
        self.loop = loop
        self.gap_s = gap_s
        self.running = 0


class Connection(asyncio.Protocol):
    """One connection of a router, or of a client that came direct."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._body: list[bytes] = []
        self._left = 0
        self._position = 0
        self._seed: int | None = None
        self._tail = _CHUNK_TAIL
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._stop()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # sglang-router asks for HTTP/2 first
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        target, body = self._target, b"".join(self._body)
        self._target, self._body = b"", []
        if self._parser.get_method() != b"POST":
            self._transport.write(self._page(target.partition(b"?")[0]))
        elif STREAMED.search(body) is None:
            self._transport.write(PREFILLED if KEEPS_KV in body else COMPLETION)
        else:
            self._start(body)

    def _page(self, path: bytes) -> bytes:
        if path == b"/metrics":
            page = metrics_page(self._engine.running)
            return answer("text/plain; version=0.0.4; charset=utf-8", page)
        return {b"/health": HEALTH, b"/v1/models": MODELS}.get(path, NOT_FOUND)

    def _start(self, body: bytes) -> None:
        wanted = MAX_TOKENS.search(body)
        self._left = int(wanted[1]) if wanted else 16
        seed = SEED.search(body)
        self._seed = int(seed[1]) if seed else None
        self._position = 0
        self._tail = _CHUNK_TAIL_WITH_ID if WANTS_IDS in body else _CHUNK_TAIL
        self._engine.running += 1
        self._due_s = self._engine.loop.time() + self._engine.gap_s
        self._timer = self._engine.loop.call_at(self._due_s, self._tick)
        self._transport.write(STREAM_HEAD)

    def _tick(self) -> None:
        if self._seed is None:
            stamp = time.monotonic_ns()
        else:
            stamp = seeded_stamp(self._seed, self._position)
            self._position += 1
        self._left -= 1
        data = chunk(event(stamp, self._tail if self._left else as_last(self._tail)))
        if self._left:
            self._due_s += self._engine.gap_s
            self._timer = self._engine.loop.call_at(self._due_s, self._tick)
            self._transport.write(data)
        else:
            self._stop()
            self._transport.write(data + chunk(DONE_EVENT) + b"0\r\n\r\n")

    def _stop(self) -> None:
        self._timer.cancel()
        self._timer = None
        self._engine.running -= 1


async def serve(port: int, gap_s: float) -> None:
    """Serve until cancelled; says the port on standard output when ready."""
    loop = asyncio.get_running_loop()
    engine = Engine(loop, gap_s)
    server = await loop.create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--gap-ms", type=float, default=20.0, help="time between two chunks")
    options = parser.parse_args()
    try:
        uvloop.run(serve(options.port, options.gap_ms / 1000))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
