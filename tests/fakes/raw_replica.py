"""A replica made of raw bytes: it records exactly what it got and answers exactly what it is told.

It runs in the test's own event loop. Each request is handed to ``respond``, a coroutine function
that gets the :class:`Exchange`; it decides when to read the body, what to send in which pieces,
and whether to end the connection. The polls of the router (``GET /health``, ``/v1/models``,
``/metrics``) are answered beside this and not recorded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.fakes.raw_connection import DEADLINE_S, RawConnection


@dataclass
class Recorded:
    """One request as it came in."""

    head: bytes
    """From the request line up to and including the empty line."""

    body: bytes = b""
    """The body as it came, transfer chunks included."""

    content: bytes = b""
    """The body without its framing."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Header fields in their order; names as they were spelled."""

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.head.partition(b"\r\n")[0]

    @property
    def method(self) -> bytes:
        """The method."""
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """The request target, raw."""
        return self.line.split(b" ")[1]

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields called ``name``, in any case."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def value(self, name: bytes) -> bytes | None:
        """The only value of ``name``; None when there is none."""
        values = self.values(name)
        assert len(values) < 2, f"{name!r} came {len(values)} times"
        return values[0] if values else None


class Exchange:
    """One request and the means to answer it."""

    def __init__(self, connection: RawConnection, request: Recorded, number: int) -> None:
        self.connection = connection
        self.request = request
        self.number = number
        """Running number of the request on its connection, from 0."""
        self._body_read = False

    async def read_body(self) -> bytes:
        """Read the request's body to its end; a request that breaks off leaves what came."""
        if not self._body_read:
            self._body_read = True
            await _read_body(self.connection, self.request)
        return self.request.content

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.connection.write(data)

    async def gone(self) -> None:
        """Wait until the router ended this connection."""
        await self.connection.gone()

    def close(self) -> None:
        """Close after what was sent."""
        self.connection.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.connection.reset()


Respond = Callable[[Exchange], Awaitable[None]]


def http(status: str, body: bytes = b"", *fields: str, length: bool = True) -> bytes:
    """The bytes of an answer; with its Content-Length unless ``length`` is off."""
    lines = [f"HTTP/1.1 {status}", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """The bytes of a chunked body, one transfer chunk a piece."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def answering(data: bytes) -> Respond:
    """Read the request whole, then send ``data``."""

    async def respond(exchange: Exchange) -> None:
        await exchange.read_body()
        exchange.send(data)

    return respond


OK = http("200 OK", b'{"ok": true}', "Content-Type: application/json")


class RawReplica:
    """The fake replica.

    Args:
        models: What it lists.
    """

    def __init__(self, *models: str) -> None:
        self.models = list(models) or ["m"]
        self.requests: list[Recorded] = []
        """All requests whose head came in, polls aside."""
        self.respond: Respond = answering(OK)
        self.connections: list[RawConnection] = []
        """All connections that carried a request that was no poll."""
        self.failures: list[BaseException] = []
        """What ``respond`` raised; a test that is not about that must find it empty."""
        self.address = ""
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], RawConnection] = {}
        self._news = asyncio.Event()

    async def start(self, unix_path: str | None = None, host: str = "127.0.0.1") -> None:
        """Listen on a free port, or on a Unix socket."""
        loop = asyncio.get_running_loop()
        if unix_path is not None:
            self._server = await loop.create_unix_server(self._connection, unix_path)
            self.address = unix_path
            return
        self._server = await loop.create_server(self._connection, host, 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """What ``--replica`` is given."""
        if self.address.startswith("/"):
            return f"http+unix://{self.address}"
        return f"http://{self.address}"

    async def stop(self) -> None:
        """Close everything."""
        self._server.close()
        await self._drop(set(self._tasks.values()))

    async def start_again(self) -> None:
        """Listen where it did before it was stopped."""
        host, _, port = self.address.rpartition(":")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, int(port))

    async def fresh(self) -> None:
        """Forget everything and drop all connections but those of the poller."""
        await self._drop(set(self.connections))
        self.connections.clear()
        self.requests.clear()
        self.failures.clear()
        self.respond = answering(OK)

    async def _drop(self, connections: set[RawConnection]) -> None:
        tasks = [task for task, connection in self._tasks.items() if connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            connection.close()

    async def arrived(self, count: int = 1) -> Recorded:
        """Wait until ``count`` requests have arrived in all; returns the last of them."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.requests) < count:
                self._news.clear()
                await self._news.wait()
        return self.requests[count - 1]

    def _connection(self) -> RawConnection:
        return RawConnection(self._serve)

    def _serve(self, connection: RawConnection) -> None:
        task = asyncio.get_running_loop().create_task(self._requests(connection))
        self._tasks[task] = connection
        task.add_done_callback(self._tasks.pop)

    async def _requests(self, connection: RawConnection) -> None:
        number = 0
        while (head := await _idle_until_head(connection)) is not None:
            request = Recorded(head, fields=_fields(head))
            page = self._page(request)
            if page is not None:
                connection.write(page)
                continue
            if not number:
                self.connections.append(connection)
            self.requests.append(request)
            self._news.set()
            exchange = Exchange(connection, request, number)
            try:
                await self.respond(exchange)
                await exchange.read_body()
            except Exception as error:  # noqa: BLE001 - told to the test, which may expect it
                self.failures.append(error)
                connection.close()
            number += 1
            if connection.transport.is_closing():
                return
        connection.close()

    def _page(self, request: Recorded) -> bytes | None:
        if request.method != b"GET":
            return None
        if request.target == b"/health":
            return http("200 OK")
        if request.target == b"/v1/models":
            listed = [{"id": name, "object": "model", "owned_by": "fake"} for name in self.models]
            body = json.dumps({"object": "list", "data": listed}).encode()
            return http("200 OK", body, "Content-Type: application/json")
        return http("404 Not Found") if request.target == b"/metrics" else None


async def _idle_until_head(connection: RawConnection) -> bytes | None:
    """As ``until``, but a connection may idle for longer than the deadline of a test."""
    while b"\r\n\r\n" not in connection.buffer:
        try:
            if not await connection.more():
                return None
        except TimeoutError:
            continue
    return await connection.until(b"\r\n\r\n")


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    made = []
    for line in head[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        made.append((name, value.strip(b" \t")))
    return made


async def _read_body(connection: RawConnection, request: Recorded) -> None:
    if request.value(b"transfer-encoding") is not None:
        await _read_chunks(connection, request)
        return
    length = int(request.value(b"content-length") or 0)
    while len(connection.buffer) < length and await connection.more():
        pass
    request.body = request.content = connection.take(min(length, len(connection.buffer)))


async def _read_chunks(connection: RawConnection, request: Recorded) -> None:
    while (line := await connection.until(b"\r\n")) is not None:
        size = int(line.split(b";")[0], 16)
        data = await connection.exactly(size + 2)
        if data is None:
            return
        request.body += line + data
        request.content += data[:size]
        if size == 0:
            return
