"""All connections to replicas: idle ones to reuse, those in use, and those being made."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from router.addresses import parse_replica_url
from router.core.request import Failure
from router.proxy.heads import ResponseHeads
from router.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from router.core.replica import Replica
    from router.core.request import Attempt
    from router.proxy.recipient import Recipient


class UpstreamPool:
    """Connections to all replicas: idle ones to reuse, and those in use.

    Args:
        loop: The event loop.
        connect_timeout_s: A replica that takes longer to accept is unreachable.
        idle_s: An idle connection is closed after this time.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, connect_timeout_s: float, idle_s: float
    ) -> None:
        self._loop = loop
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._idle: dict[Replica, list[UpstreamConnection]] = {}
        self._all: set[UpstreamConnection] = set()
        self.heads = ResponseHeads()
        self._connecting: dict[Attempt, asyncio.Task[None]] = {}

    @property
    def open_count(self) -> int:
        """Connections that are open, idle ones included."""
        return len(self._all)

    @property
    def idle_count(self) -> int:
        """Open connections that carry nothing."""
        return sum(len(connections) for connections in self._idle.values())

    @property
    def connecting_count(self) -> int:
        """Connections that are being made."""
        return len(self._connecting)

    def send(self, recipient: Recipient, attempt: Attempt) -> None:
        """Send the recipient's request to the attempt's replica."""
        idle = self._idle.get(attempt.replica)
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.send(recipient, attempt)
                return
        self.send_fresh(recipient, attempt)

    def send_fresh(self, recipient: Recipient, attempt: Attempt) -> None:
        """As :meth:`send`, but over a new connection."""
        task = self._loop.create_task(self._connect_and_send(recipient, attempt))
        self._connecting[attempt] = task
        task.add_done_callback(lambda _: self._connecting.pop(attempt, None))

    def cancel_connecting(self, attempt: Attempt) -> None:
        """Give up the connection that is being made for ``attempt``, if any."""
        task = self._connecting.pop(attempt, None)
        if task is not None:
            task.cancel()

    def opened(self, connection: UpstreamConnection) -> None:
        """A connection is open."""
        self._all.add(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """A connection is gone."""
        self._all.discard(connection)
        idle = self._idle.get(connection.replica)
        if idle and connection in idle:
            idle.remove(connection)

    def release(self, connection: UpstreamConnection) -> None:
        """A connection carries nothing any more and may be used again."""
        connection.idle_since_s = self._loop.time()
        self._idle.setdefault(connection.replica, []).append(connection)

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        oldest_s = now - self._idle_s
        for replica, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since_s < oldest_s]:
                connection.transport.close()
            idle[:] = [c for c in idle if not c.transport.is_closing()]
            if not idle:
                del self._idle[replica]

    def close(self) -> None:
        """Drop every connection."""
        for task in list(self._connecting.values()):
            task.cancel()
        for connection in list(self._all):
            connection.abort()

    async def _connect_and_send(self, recipient: Recipient, attempt: Attempt) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await _connect(self._loop, self, attempt.replica)
        except OSError:  # TimeoutError is one
            recipient.attempt_failed(attempt, Failure.CONNECT, at_boundary=False)
        else:
            connection.send(recipient, attempt)


async def _connect(
    loop: asyncio.AbstractEventLoop, pool: UpstreamPool, replica: Replica
) -> UpstreamConnection:
    address = parse_replica_url(replica.url)

    def factory() -> UpstreamConnection:
        return UpstreamConnection(pool, replica)

    if address.path is not None:
        _, connection = await loop.create_unix_connection(factory, address.path)
        return connection
    transport, connection = await loop.create_connection(factory, address.host, address.port)
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection
