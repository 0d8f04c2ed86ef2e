"""A data plane without sockets: transports that record, a clock moved by hand."""

import asyncio
import itertools
from random import Random

from policies.base import Choice
from router.config.structs import Config, ContinuationConfig
from router.core.decisions import Decisions
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.proxy.plane import DataPlane
from router.proxy.upstream import UpstreamConnection


class First:
    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "first")


class Ends:
    """An observer that remembers how requests ended."""

    def __init__(self):
        self.ended = []

    def request_ended(self, request, replica, now):
        self.ended.append((request.state, replica.name if replica else None))

    def policy_failed(self, error):
        raise error


class Transport(asyncio.Transport):
    """Records what is written and done to it."""

    def __init__(self, on_lost):
        super().__init__()
        self.written = b""
        self.reading = True
        self.state = "open"
        self.on_lost = on_lost

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        assert self.state == "open", "written after the end"
        self.written += data

    def get_write_buffer_size(self):
        return 0

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.state = "half-closed"

    def is_closing(self):
        return self.state in {"closed", "aborted"}

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def close(self):
        self._end("closed")

    def abort(self):
        self._end("aborted")

    def _end(self, state):
        if not self.is_closing():
            self.state = state
            self.on_lost(None)


class Loop:
    """The few things that a data plane asks of its loop."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


class House:
    """A data plane, one client, and replicas whose connections are made by hand."""

    def __init__(self, replicas=("r1",), *, continues=False, **config):
        self.loop = Loop()
        self.fleet = FleetState()
        self.ends = Ends()
        self.dispatcher = Dispatcher(
            self.fleet, First(), Random(0), self.ends, decisions=Decisions()
        )
        continuation = ContinuationConfig(enabled=continues)
        config = Config(continuation=continuation, **config)
        self.plane = DataPlane(config, self.dispatcher, Random(1), self.loop)
        for name in replicas:
            replica = self.fleet.add(name, f"http://{name}")
            self.fleet.health_seen(replica, healthy=True, reason="")
            self.fleet.models_seen(replica, ["m"], {"m": b'{"id":"m","max_model_len":8}'})

    def client(self):
        protocol = self.plane.protocol()
        transport = Transport(protocol.connection_lost)
        protocol.connection_made(transport)
        return protocol, transport

    def upstream(self, name="r1"):
        """An idle connection to a replica, which the next request there will use."""
        connection = UpstreamConnection(self.plane.pool, self.fleet.replicas[name])
        transport = Transport(connection.connection_lost)
        connection.connection_made(transport)
        self.plane.pool.release(connection)
        return connection, transport

    def assert_drained(self):
        assert not self.dispatcher.open
        assert self.plane.buffered_bytes == 0
        assert self.plane.pool.open_count == self.plane.pool.idle_count
        for replica in self.fleet.replicas.values():
            assert replica.in_flight == 0
            assert replica.in_flight_prompt_tokens == 0
            assert replica.in_flight_output_tokens == 0


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]
