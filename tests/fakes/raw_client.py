"""A client that says exactly what it is told and judges what it gets without leniency."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.fakes.raw_connection import RawConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NO_BODY = frozenset({204, 304})


@dataclass
class Answer:
    """One answer as it came in."""

    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    """Without its framing; as far as it came."""
    complete: bool
    """Whether its framing says that this is all of it."""

    def values(self, name: str) -> list[bytes]:
        """The values of all fields called ``name``, in any case."""
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    def value(self, name: str) -> bytes | None:
        """The only value of ``name``; None when there is none."""
        values = self.values(name)
        assert len(values) < 2, f"{name!r} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> dict:
        """The body as JSON."""
        return json.loads(self.body)


class RawClient(RawConnection):
    """A client's connection."""

    async def answer(self, method: str = "GET") -> Answer:
        """Read one final answer; ``method`` is that of its request. 1xx answers must be asked
        for with :meth:`head`.

        Raises:
            AssertionError: The connection ended before the head did, or the answer is malformed.
        """
        status, reason, fields = await self.head()
        lengths = [value for name, value in fields if name.lower() == b"content-length"]
        codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
        assert not (lengths and codings), "both Content-Length and Transfer-Encoding"
        if method == "HEAD" or status in NO_BODY:
            return Answer(status, reason, fields, b"", complete=True)
        if codings:
            assert codings == [b"chunked"], codings
            body, complete = await self._chunks()
        elif lengths:
            assert len(lengths) == 1, lengths
            body, complete = await self._counted(int(lengths[0]))
        else:
            body, complete = await self.rest(), self.error is None
        return Answer(status, reason, fields, body, complete)

    async def head(self) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Read one head, of a 1xx answer too: status, reason, fields."""
        block = await self.until(b"\r\n\r\n")
        assert block is not None, f"no answer, only {bytes(self.buffer)!r} ({self.error!r})"
        line, *rest = block[:-4].split(b"\r\n")
        version, status, reason = line.split(b" ", 2)
        assert version == b"HTTP/1.1", line
        fields = []
        for field in rest:
            name, colon, value = field.partition(b":")
            assert colon, field
            assert name, field
            fields.append((name, value.strip(b" \t")))
        return int(status), reason, fields

    async def _counted(self, length: int) -> tuple[bytes, bool]:
        body = await self.exactly(length)
        if body is None:
            return self.take(len(self.buffer)), False
        return body, True

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while (line := await self.until(b"\r\n")) is not None:
            size = int(line.split(b";")[0], 16)
            if size == 0:
                trailer = await self.until(b"\r\n")
                assert trailer in {b"\r\n", None}, trailer
                return body, trailer is not None
            data = await self.exactly(size + 2)
            if data is None:
                return body + self.take(len(self.buffer)), False
            assert data.endswith(b"\r\n"), data[-8:]
            body += data[:-2]
        return body, False

    async def closed(self) -> None:
        """Assert that nothing more comes and the connection ends."""
        left = await self.rest()
        assert left == b"", left


async def connected(url: str) -> RawClient:
    """A connection to ``http://host:port`` or ``http+unix:///path``."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        _, client = await loop.create_unix_connection(RawClient, parts.path)
    else:
        _, client = await loop.create_connection(RawClient, parts.hostname, parts.port)
    return client


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawClient]:
    """A connection for the time of a block."""
    client = await connected(url)
    try:
        yield client
    finally:
        client.close()


def request(
    method: str = "POST",
    target: str = "/v1/chat/completions",
    body: bytes | None = b'{"model": "m", "messages": []}',
    *fields: str,
    host: str | None = "pointsman.test",
    version: str = "HTTP/1.1",
    length: bool = True,
) -> bytes:
    """The bytes of a request; well-formed unless the arguments are not."""
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += fields
    if body is not None and length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
