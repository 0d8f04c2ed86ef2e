"""Asking one replica one thing, with bounds on time and size.

A client of our own, on the codec of the data plane: with four replicas at their usual pace a
general one took 5 us of CPU for every streamed chunk that passed meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import Final, Self

from router.addresses import parse_replica_url
from router.polling.connection import (
    Answer,
    Blame,
    Connection,
    HungUpError,
    LookFailedError,
    remembered_heads,
)

MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""Largest answer read; vLLM's metrics pages are 50 to 300 KB."""

_MAX_HEADS = 16
"""Heads of one replica's answers that are remembered: a few pages, a second's ``Date`` each."""

_NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.ENOENT})
_OUR_OWN_FAULT = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)

# A page that the replica packs and we unpack costs both more than the loopback or LAN saves.
_FIELDS = (
    "\r\nUser-Agent: pointsman"
    "\r\nAccept: text/plain;version=0.0.4, application/json;q=0.9, */*;q=0.1"
    "\r\nAccept-Encoding: identity\r\n"
)


class ReplicaClient:
    """Connections to one replica, kept open between looks, while in its ``async with`` block.

    Args:
        base_url: ``http://host:port`` or ``http+unix:///path``.
        timeout_s: A whole look may take this long.
        max_page_bytes: A longer answer is a failure.

    Raises:
        router.addresses.AddressError: ``base_url`` has neither form.
    """

    def __init__(
        self, base_url: str, *, timeout_s: float, max_page_bytes: int = MAX_PAGE_BYTES
    ) -> None:
        self._address = parse_replica_url(base_url)
        self._host = "localhost" if self._address.path is not None else str(self._address)
        self._max_page_bytes = max_page_bytes
        self._timeout_s = timeout_s
        self._heads = remembered_heads(_MAX_HEADS)
        self._idle: list[Connection] = []
        self._requests: dict[str, bytes] = {}
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._open = False
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def get(self, path: str) -> Answer:
        """Ask for ``path``; redirects are not followed.

        Raises:
            LookFailedError: There was no whole answer.
            RuntimeError: Called outside the ``async with`` block.
        """
        request = self._requests.get(path)
        if request is None:
            request = f"GET {path} HTTP/1.1\r\nHost: {self._host}{_FIELDS}\r\n".encode()
            self._requests[path] = request
        return await self._answer(request, self._timeout_s)

    async def post(self, path: str, body: bytes, timeout_s: float) -> Answer:
        """Post JSON to ``path``.

        Raises:
            LookFailedError: There was no whole answer within ``timeout_s``.
            RuntimeError: Called outside the ``async with`` block.
        """
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}{_FIELDS}{more}"
        return await self._answer(head.encode() + body, timeout_s)

    async def _answer(self, request: bytes, timeout_s: float) -> Answer:
        if not self._open:
            msg = "the client is not open"
            raise RuntimeError(msg)
        loop = asyncio.get_running_loop()
        try:
            return await self._ask(loop, request, loop.time() + timeout_s)
        except TimeoutError as error:
            msg = f"no answer within {timeout_s:g} s"
            raise LookFailedError(msg) from error
        except OSError as error:
            raise _not_connected(error) from error

    async def _ask(
        self, loop: asyncio.AbstractEventLoop, request: bytes, deadline_s: float
    ) -> Answer:
        answer, connection = None, self._kept()
        if connection is not None:
            with suppress(HungUpError):  # it was kept for too long: a new one tells
                answer = await connection.ask(request, deadline_s)
        if connection is None or answer is None:
            async with asyncio.timeout_at(deadline_s):
                connection = await self._connect(loop)
            answer = await connection.ask(request, deadline_s)
        if connection.usable and self._open:
            self._idle.append(connection)
        return answer

    def _kept(self) -> Connection | None:
        """A connection that was kept open, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        address = self._address

        def factory() -> Connection:
            return Connection(loop, self._heads, self._max_page_bytes)

        if address.path is not None:
            return (await loop.create_unix_connection(factory, address.path))[1]
        return (await loop.create_connection(factory, address.host, address.port))[1]


def _not_connected(error: OSError) -> LookFailedError:
    code = error.errno
    if isinstance(error, socket.gaierror):
        return LookFailedError("its name does not resolve")
    if code in _NOBODY_THERE:
        return LookFailedError("connection refused", Blame.REFUSED)
    if code in _OUR_OWN_FAULT:
        return LookFailedError(f"the router itself: {errno.errorcode[code]}", Blame.OURS)
    return LookFailedError(f"cannot connect ({errno.errorcode.get(code or 0, 'unknown error')})")
