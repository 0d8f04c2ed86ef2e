"""An inference server that answers as a test scripts it, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"x-pointsman-replica: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def head(replica=b"r1:1"):
    return CHUNKED % replica


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value):
    return b"data: %s\n\n" % (value if isinstance(value, bytes) else json.dumps(value).encode())


def token(text=" house", finish_reason=None):
    return event(
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]}
    )


def usage(prompt_tokens, completion_tokens, cached_tokens=None):
    details = None if cached_tokens is None else {"cached_tokens": cached_tokens}
    return event(
        {
            "choices": [],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "prompt_tokens_details": details,
            },
        }
    )


DONE = event(b"[DONE]")


def whole_answer(request, replica=b"r1:1", cached_tokens=None):
    """A right answer to ``request``: as many tokens as it asks for, one a chunk."""
    wanted = request["max_tokens"]
    events = [token("")] + [token()] * (wanted - 1) + [token(finish_reason="length")]
    events += [usage(prompt_tokens_of(request), wanted, cached_tokens), DONE]
    return head(replica) + b"".join(map(chunk, events)) + LAST_CHUNK


def text_of(request):
    return request["messages"][0]["content"] if "messages" in request else request["prompt"]


def prompt_tokens_of(request):
    return len(text_of(request).split())


async def answer_whole(request, writer):
    writer.write(whole_answer(request))


@dataclass
class ScriptedServer:
    """Answers each POST by calling ``answer(request, writer)``; a False return closes."""

    answer: object = answer_whole
    models: bytes = b'{"object": "list", "data": [{"id": "sim"}, {"id": "other"}]}'
    requests: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    handlers: set = field(default_factory=set)
    url: str = ""

    async def handle(self, reader, writer):
        self.handlers.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    await writer.drain()
        finally:
            writer.close()
            self.handlers.discard(asyncio.current_task())

    async def _exchange(self, reader, writer):
        request_head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if request_head.startswith("GET /v1/models "):
            size = len(self.models)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, self.models))
            return True
        length = int(request_head.lower().split("content-length:")[1].split("\r\n")[0])
        request = json.loads(await reader.readexactly(length))
        async with self.arrived:
            self.heads.append(request_head)
            self.requests.append(request)
            self.arrived.notify_all()
        return await self.answer(request, writer) is not False

    async def saw(self, count):
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    @contextlib.asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0, limit=1 << 20)
        host, port = server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            server.close()
            handlers = set(self.handlers)  # of connections that a script or a client left open
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
            await asyncio.sleep(0)  # transports close in the next round of the loop


class ServerThread:
    """A scripted server on a loop of its own, for commands that run their own loop."""

    def __init__(self):
        self.server = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with ScriptedServer().running() as self.server:
            self._ready.set()
            await self._stop.wait()

    def wait_for_requests(self, count):
        asyncio.run_coroutine_threadsafe(self.server.saw(count), self._loop).result(20)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
