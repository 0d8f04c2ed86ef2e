"""Subscribes to the cache events of the replicas that publish them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from router.kv_events.stream import EventStream
from router.kv_events.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.core.prefix_index import PrefixIndex
    from router.core.replica import Replica
    from router.kv_events.counters import Counters

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_QUEUED = 1000
"""Messages of one replica that wait to be read; what comes on top of that is missed, and seen to
be missed by its number."""

RECONNECT_MAX_MS = 5000
HEARTBEAT_MS = 5000


class _Entry(msgspec.Struct):
    parent: str | None = None


class KvEventFeed:
    """Keeps the prefix index true to what replicas publish of their caches.

    Args:
        index: The index.
    """

    def __init__(self, index: PrefixIndex) -> None:
        self._index = index
        self._streams: dict[str, EventStream] = {}
        self._endpoints: dict[str, str] = {}
        self._context: zmq.asyncio.Context | None = None
        self._sockets: list[zmq.asyncio.Socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def counters(self) -> Mapping[str, Counters]:
        """What was seen, by replica."""
        return {name: stream.counters for name, stream in self._streams.items()}

    @property
    def blocks(self) -> Mapping[str, int]:
        """Engine blocks known to be cached, by replica."""
        return {name: stream.tracker.blocks for name, stream in self._streams.items()}

    def watch(self, replica: Replica, endpoint: str) -> None:
        """Follow a replica; to be called before :meth:`start`.

        Args:
            replica: The replica.
            endpoint: Where it publishes, as ZMQ writes it: ``tcp://host:port``.
        """
        tracker = Tracker(self._index, replica.name, Names(replica))
        self._streams[replica.name] = EventStream(tracker)
        self._endpoints[replica.name] = endpoint

    async def start(self) -> None:
        """Connect to all; a replica that is not there yet is tried again and again.

        Raises:
            OSError: An endpoint is none; the message names it.
        """
        if not self._endpoints:
            return
        self._context = zmq.asyncio.Context()
        for name, endpoint in self._endpoints.items():
            socket = _socket(self._context)
            self._sockets.append(socket)
            monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self._sockets.append(monitor)
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                msg = f"the KV events of {name} at {endpoint}: {error.strerror}"
                raise OSError(error.errno, msg) from error
            stream = self._streams[name]
            self._tasks += [
                asyncio.create_task(_read(socket, stream), name=f"kv events of {name}"),
                asyncio.create_task(_watch(monitor, stream.counters), name=f"kv link of {name}"),
            ]

    async def aclose(self) -> None:
        """Stop reading and close every socket."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for socket in self._sockets:
            socket.close(linger=0)
        self._sockets.clear()
        if self._context is not None:
            self._context.term()
            self._context = None
        for name in self._streams:
            self._index.unfollow(name)


class Names:
    """Under which name requests ask for an adapter of a replica, or for its base model.

    Args:
        replica: The replica; it lists its models when it is up.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._entries: Mapping[str, bytes] = {}
        self._base: str | None = None

    def __call__(self, adapter: str | None) -> str | None:
        """The name; None when the replica has not told it."""
        if adapter is not None:
            return adapter
        entries = self._replica.model_entries
        if entries is not self._entries:
            self._entries, self._base = entries, _base_model(entries)
        return self._base


def _base_model(entries: Mapping[str, bytes]) -> str | None:
    for name, entry in entries.items():
        try:
            parent = msgspec.json.decode(entry, type=_Entry).parent
        except msgspec.DecodeError:  # its own idea of an entry: nothing says it is an adapter
            parent = None
        if parent is None:
            return name
    return None


def _socket(context: zmq.asyncio.Context) -> zmq.asyncio.Socket:
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, MAX_QUEUED)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    return socket


async def _read(socket: zmq.asyncio.Socket, stream: EventStream) -> None:
    while True:
        stream.take(await socket.recv_multipart())
        # A message that is there already is received without a pause; streams must get their turn.
        await asyncio.sleep(0)


async def _watch(monitor: zmq.asyncio.Socket, counters: Counters) -> None:
    while True:
        event = parse_monitor_message(await monitor.recv_multipart())
        if event["event"] == zmq.EVENT_DISCONNECTED:
            counters.disconnects += 1
