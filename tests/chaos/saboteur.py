"""A TCP relay before a replica that spoils answers on the wire, as broken networks and servers do.

What it passes on are the bytes of a real answer, so the text that a client is told in the end can
still be compared with the unbroken one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from tests.chaos.stream import dechunked

READ_BYTES = 1 << 16
AFTER_BYTES = 1500
"""An answer is spoilt once so much of it came: its head and a few events."""

LATE_S = 2.0
"""How long a connection is left alone that is accepted slowly."""


class Spoil(StrEnum):
    """How an answer is spoilt."""

    RESET = "RST mid-body"
    FIN = "FIN mid-chunk"
    GARBAGE = "garbage bytes"
    STALL = "stall mid-chunk"
    SHORT = "Content-Length of more than comes"
    TRUNCATED = "no last chunk"
    HALF_OPEN = "half-open"
    LATE = "slow accept"


@dataclass(slots=True)
class _Link:
    """One connection of the router."""

    spoil: Spoil | None = None
    passed_bytes: int = 0
    kept: bytearray = field(default_factory=bytearray)


class Saboteur:
    """The relay; without being armed it only passes on."""

    def __init__(self) -> None:
        self.url = ""
        self.struck = asyncio.Semaphore(0)
        """Released for each answer that was spoilt."""
        self._target = ("", 0)
        self._spoil: Spoil | None = None
        self._strikes = 0
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, target: str) -> None:
        """Listen, and pass on to ``target``, a URL."""
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close everything."""
        self._server.close()
        handlers = set(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next round of the loop

    def arm(self, spoil: Spoil, strikes: int = 1) -> None:
        """Spoil the next answers, or accept the next connections slowly, ``strikes`` of them."""
        self._spoil, self._strikes = spoil, strikes

    def disarm(self) -> None:
        """Spoil no further one."""
        self._strikes = 0

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._handlers.add(asyncio.current_task())
        back_writer = None
        try:
            if self._spoil is Spoil.LATE and self._strikes > 0:
                self._strikes -= 1
                self.struck.release()
                await asyncio.sleep(LATE_S)
            back_reader, back_writer = await asyncio.open_connection(*self._target)
            link = _Link()
            pumps = {
                asyncio.create_task(self._pump_requests(reader, back_writer, link)),
                asyncio.create_task(self._pump_answers(back_reader, writer, link)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except ConnectionError:
            reset(writer)  # nobody is behind: whoever asked shall see a broken connection
        finally:
            for end in (writer, back_writer):
                if end is not None:
                    end.close()
            self._handlers.discard(asyncio.current_task())

    async def _pump_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        while data := await reader.read(READ_BYTES):
            late = self._spoil is Spoil.LATE
            if data.startswith(b"POST ") and self._strikes > 0 and not late:
                self._strikes -= 1
                link.spoil, link.passed_bytes = self._spoil, 0
            if link.spoil is not Spoil.HALF_OPEN:
                writer.write(data)
            else:
                self.struck.release()

    async def _pump_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        while data := await reader.read(READ_BYTES):
            link.passed_bytes += len(data)
            if link.spoil is None:
                writer.write(data)
            elif link.spoil is Spoil.SHORT:
                link.kept += data
                if data.endswith(b"0\r\n\r\n"):
                    writer.write(_promising_more(bytes(link.kept)))
                    self.struck.release()
                    return
            elif link.spoil is Spoil.TRUNCATED:
                ended = data.endswith(b"0\r\n\r\n")
                writer.write(data.removesuffix(b"0\r\n\r\n"))
                if ended:
                    self.struck.release()
                    return
            elif link.passed_bytes < AFTER_BYTES:
                writer.write(data)
            else:
                await self._spoil_now(link.spoil, data, writer)
                return

    async def _spoil_now(self, spoil: Spoil, data: bytes, writer: asyncio.StreamWriter) -> None:
        self.struck.release()
        if spoil is Spoil.RESET:
            reset(writer)
        elif spoil is Spoil.FIN:
            writer.write(data[: len(data) // 2])
        elif spoil is Spoil.GARBAGE:
            writer.write(data + b"\xff\x00zz this is no size of a chunk\r\n")
            await asyncio.Event().wait()  # the connection stays, as that of a mad server would
        else:
            writer.write(data[: len(data) // 2])
            await asyncio.Event().wait()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close by RST."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _promising_more(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    content, _ = dechunked(body)
    fields = [f for f in head.split(b"\r\n") if not f.lower().startswith(b"transfer-encoding")]
    fields.append(b"Content-Length: %d" % (len(content) + 100))
    return b"\r\n".join(fields) + b"\r\n\r\n" + content
