"""The body of a streamed response, written straight to the transport.

aiohttp reads requests and writes heads; the events of a stream are thousands a second, so their
chunks are framed here and go to the transport without a coroutine between them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11

if TYPE_CHECKING:
    from aiohttp import web


class BodyWriter:
    """Writes the body of one response. What is written before the head is sent waits for it."""

    __slots__ = ("_chunked", "_held", "_transport", "first_write")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._chunked = False
        self._held: list[bytes] | None = []
        self.first_write: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send the head of ``response``, and what was held back for it."""
        self._chunked = request.version >= HttpVersion11
        if self._chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        self._transport = request.transport
        held, self._held = self._held, None
        if held:
            self.write(b"".join(held))

    def write(self, data: bytes) -> None:
        """Send ``data``; nothing when there is none, or the client is gone."""
        if not data:
            return  # an empty chunk would be the end of the body
        if self._held is not None:
            self._held.append(data)
            if not self.first_write.done():
                self.first_write.set_result(None)
            return
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def tear(self, data: bytes) -> None:
        """Send half of ``data``, announced as a whole, and close."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            head = b"%x\r\n" % len(data) if self._chunked else b""
            transport.write(head + data[: len(data) // 2])
            transport.close()

    def close(self) -> None:
        """Close the connection (FIN) without an end of the body."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
