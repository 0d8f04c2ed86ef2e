"""Python's part of a request and of a chunk: the whole data plane over transports that do nothing.

What the kernel and the event loop cost is left out, so the figures repeat within a few percent even
on a busy machine: of many short batches the fastest one counts. They show what a change costs long
before the ratios of ``python -m tests.bench`` do.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import time
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from policies import registry
from router.config.structs import Config
from router.core.decisions import Decisions
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.sample import Sample
from router.proxy.plane import DataPlane
from router.proxy.upstream import UpstreamConnection
from router.telemetry.telemetry import Telemetry
from tests.bench.load import request_bytes
from tests.fakes.fast_replica import COMPLETION, MODEL, STREAM_HEAD, chunk, event

if TYPE_CHECKING:
    from collections.abc import Callable

REPLICAS = 4
CONNECTIONS = 32
STREAMS = 200
PLAIN_BATCHES = 300
CHUNK_BATCHES = 40
ROUNDS = 16
"""Chunks of each stream in one batch."""
STEP_S = 100e-6
"""The clock goes on by this with each event."""
SWEEP_EVENTS = 2500
POLICIES = ("power_of_two", "least_estimated_completion")


class Row(NamedTuple):
    """One figure."""

    policy: str
    what: str
    cpu_us: float


class Wire(asyncio.Transport):
    """A transport that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: Callable[[], None] | None = None

    def get_extra_info(self, name, default=None):
        return ("127.0.0.1", 1) if name == "peername" else self

    def setsockopt(self, *args) -> None:
        """As a socket."""

    def write(self, data) -> None:
        """Tell whoever waits for it."""
        if self.written is not None:
            self.written()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Clock:
    """The part of an event loop that the data plane uses here."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s


class Rig:
    """A data plane with clients and replicas whose connections are open."""

    def __init__(self, policy: str) -> None:
        self.clock = Clock()
        self.fleet = FleetState()
        self.dispatcher = Dispatcher(
            self.fleet,
            registry.load(policy, {}),
            Random(1),
            Telemetry(self.clock.time),
            decisions=Decisions(),
        )
        self.plane = DataPlane(Config(), self.dispatcher, Random(2), self.clock)
        self.busy: list[UpstreamConnection] = []
        self.rng = Random(3)
        for number in range(REPLICAS):
            replica = self.fleet.add(f"10.0.0.{number}:8000", f"http://10.0.0.{number}:8000")
            self.dispatcher.models_seen(replica, [MODEL])
            self.dispatcher.health_seen(replica, self.clock.now_s, healthy=True, reason="")
            for _ in range(STREAMS):
                self._connect(replica)
        self.poll()
        self.clients = []
        for _ in range(STREAMS):
            client = self.plane.protocol()
            client.connection_made(Wire())
            self.clients.append(client)
        self._events = 0

    def _connect(self, replica) -> None:
        connection = UpstreamConnection(self.plane.pool, replica)
        wire = Wire()
        connection.connection_made(wire)
        wire.written = lambda: self.busy.append(connection)
        self.plane.pool.release(connection)

    def poll(self) -> None:
        """A look at each replica, and a sweep."""
        now = self.clock.now_s
        for replica in self.fleet.replicas.values():
            sample = Sample(
                running=replica.in_flight,
                waiting=0,
                kv_occupancy=0.2,
                kv_block_tokens=16,
                kv_blocks=25_000,
            )
            self.dispatcher.look_began(replica)
            self.plane.perform(self.dispatcher.sampled(replica, sample, now))
        self.plane.perform(self.dispatcher.tick(now))

    def step(self) -> None:
        """Time goes on."""
        self.clock.now_s += STEP_S
        self._events += 1
        if self._events >= SWEEP_EVENTS:
            self._events = 0
            self.poll()

    def plain(self, requests: list[bytes]) -> None:
        """A batch of unstreamed requests, ``CONNECTIONS`` at a time, answered in any order."""
        for client, request in zip(self.clients, requests, strict=False):
            self.step()
            client.data_received(request)
        self.rng.shuffle(self.busy)
        while self.busy:
            self.step()
            self.busy.pop().data_received(COMPLETION)

    def streams(self, requests: list[bytes], data: bytes) -> list[UpstreamConnection]:
        """Open streams: each gets its head and a first chunk."""
        opened: list[UpstreamConnection] = []
        for client, request in zip(self.clients, requests, strict=True):
            self.step()
            client.data_received(request)
        while len(opened) < len(requests):
            self.clock.now_s += 0.05
            if not self.busy:
                self.poll()
                continue
            connection = self.busy.pop(0)  # its first token frees those that wait in the router
            connection.data_received(STREAM_HEAD + data)
            opened.append(connection)
        return opened

    def chunks(self, streams: list[UpstreamConnection], data: bytes) -> None:
        """One chunk on each stream."""
        self.clock.now_s += 0.02
        for connection in streams:
            connection.data_received(data)


def _requests(count: int, *, streamed: bool) -> list[bytes]:
    return [request_bytes("127.0.0.1:8080", n, 64, streamed=streamed) for n in range(count)]


def _fastest_us(act: Callable[[], None], count: int, batches: int) -> float:
    best = float("inf")
    for _ in range(batches):
        start = time.thread_time_ns()
        act()
        best = min(best, (time.thread_time_ns() - start) / count / 1000)
    return best


def plain_us(policy: str) -> float:
    """CPU of an unstreamed request."""
    rig, requests = Rig(policy), _requests(CONNECTIONS, streamed=False)
    for _ in range(20):
        rig.plain(requests)
    return _fastest_us(lambda: rig.plain(requests), CONNECTIONS, PLAIN_BATCHES)


def chunk_us(policy: str) -> float:
    """CPU of a chunk, reports to the dispatcher and all."""
    rig, data = Rig(policy), chunk(event(1))
    streams = rig.streams(_requests(STREAMS, streamed=True), data)

    def act() -> None:
        for _ in range(ROUNDS):
            rig.chunks(streams, data)

    for _ in range(5):
        act()
    return _fastest_us(act, ROUNDS * STREAMS, CHUNK_BATCHES)


def run() -> list[Row]:
    """Measure."""
    rows = []
    gc.collect()
    gc.disable()
    try:
        for policy in POLICIES:
            rows.append(Row(policy, "unstreamed request", plain_us(policy)))
            rows.append(Row(policy, "chunk", chunk_us(policy)))
    finally:
        gc.enable()
    return rows


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    shown = Table("policy", "what", "Python CPU us", title="the data plane without sockets")
    for row in rows:
        shown.add_row(row.policy, row.what, f"{row.cpu_us:.2f}")
    return shown


def profile(policy: str) -> None:
    """Where the time of unstreamed requests goes."""
    rig, plain = Rig(policy), _requests(CONNECTIONS, streamed=False)
    rig.plain(plain)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(300):
        rig.plain(plain)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", metavar="POLICY", help="show where the time goes")
    options = parser.parse_args()
    if options.profile:
        profile(options.profile)
        return
    Console().print(table(run()))


if __name__ == "__main__":
    main()
