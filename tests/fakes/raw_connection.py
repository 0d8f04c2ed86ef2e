"""One side of a connection, byte by byte; the fake replica and the test client build on it."""

from __future__ import annotations

import asyncio
import socket
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 10.0
"""How long a test waits for what must happen; it normally takes a millisecond."""


class RawConnection(asyncio.Protocol):
    """Bytes in, bytes out, and what became of the connection."""

    def __init__(self, on_made: Callable[[RawConnection], None] | None = None) -> None:
        self.buffer = bytearray()
        """Received and not yet taken."""
        self.received = bytearray()
        """All that was ever received."""
        self.eof = False
        """Whether the other side ended its sending side."""
        self.lost = asyncio.Event()
        """Set when the connection is gone, whoever ended it."""
        self.error: Exception | None = None
        """Why it is gone; None for a clean end."""
        self.transport: asyncio.Transport | None = None
        self._more = asyncio.Event()
        self._on_made = on_made

    def connection_made(self, transport) -> None:
        self.transport = transport
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.received += data
        self._more.set()

    def eof_received(self) -> bool:
        self.eof = True
        self._more.set()
        return True  # keep our own side open: the test says when it closes

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.eof = True
        self.lost.set()
        self._more.set()

    @property
    def over(self) -> bool:
        """Whether no further byte can come."""
        return self.eof or self.lost.is_set()

    # -- receiving ----------------------------------------------------------------------------

    async def more(self) -> bool:
        """Wait for further bytes; False when the connection ended instead."""
        if self.over:
            return False
        self._more.clear()
        async with asyncio.timeout(DEADLINE_S):
            await self._more.wait()
        return True

    async def until(self, separator: bytes) -> bytes | None:
        """Take all up to and including ``separator``; None when the connection ended first."""
        while (at := self.buffer.find(separator)) < 0:
            if not await self.more():
                return None
        return self.take(at + len(separator))

    async def exactly(self, count: int) -> bytes | None:
        """Take ``count`` bytes; None when the connection ended first."""
        while len(self.buffer) < count:
            if not await self.more():
                return None
        return self.take(count)

    async def rest(self) -> bytes:
        """Take everything up to the connection's end."""
        while await self.more():
            pass
        return self.take(len(self.buffer))

    def take(self, count: int) -> bytes:
        """Take ``count`` bytes that are there already."""
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def gone(self) -> None:
        """Wait until the other side ended the connection, in whatever way."""
        while not self.over:
            await self.more()

    # -- sending and ending -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send; what does not fit the socket is kept by the transport."""
        self.transport.write(data)

    async def write_cut(self, data: bytes, cuts: list[int]) -> None:
        """Send ``data`` in segments, cut at the given offsets."""
        sock = self.transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        edges = [0, *cuts, len(data)]
        for start, end in pairwise(edges):
            if self.transport.is_closing():
                return
            self.transport.write(data[start:end])
            await asyncio.sleep(0.001)  # so that segments are likely read one by one; no
            # outcome depends on it: the verdict must be the same for any segmentation

    def end_sending(self) -> None:
        """Half-close."""
        self.transport.write_eof()

    def close(self) -> None:
        """End in good order, after what was written."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """End with RST: the other side loses what it had not read yet."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
