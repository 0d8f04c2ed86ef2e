"""A replica made of answers, a clock moved by hand, and a fleet that remembers what it heard."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from random import Random

from aiohttp import web

from router.config.structs import PollingConfig
from router.core.fleet import FleetState
from router.polling.poller import Poller

PAGES = Path(__file__).parent.parent / "engines" / "pages"
DEADLINE_S = 10.0


def page(name):
    return (PAGES / name).read_bytes()


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the other end of a socket signals to nobody
            await asyncio.sleep(0.001)


def models(*names):
    listed = ",".join(f'{{"id":"{name}","object":"model"}}' for name in names)
    return f'{{"object":"list","data":[{listed}]}}'.encode()


class FakeReplica:
    """Answers each path with ``(status, body)``, or with what a handler makes of the request."""

    def __init__(self):
        self.answers = {}
        self.headers = {}
        self.asked = []
        self._runner = None
        self._port = 0
        self._path = None

    @classmethod
    def vllm(cls):
        replica = cls()
        replica.answers = {
            "/health": (200, b""),
            "/v1/models": (200, models("tiny")),
            "/metrics": (200, page("vllm_0_32.txt")),
        }
        return replica

    @property
    def url(self):
        return f"http+unix://{self._path}" if self._path else f"http://127.0.0.1:{self._port}"

    @property
    def connections(self):
        return sum(each.transport is not None for each in self._runner.server.connections)

    async def start(self, path=None):
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._path = path
        if path:
            await web.UnixSite(self._runner, str(path)).start()
            return
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self):
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request):
        self.asked.append(request.path_qs)
        answer = self.answers.get(request.path_qs, (404, b'{"detail":"Not Found"}'))
        if callable(answer):
            return await answer(request)
        status, body = answer
        return web.Response(status=status, body=body, headers=self.headers)


class Hang:
    """A handler that answers once it is let go."""

    def __init__(self):
        self.let_go = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, request):
        self.reached.set()
        await self.let_go.wait()
        return web.Response()


class Pacer:
    """The poller's clock and pauses; a loop goes on only when it is stepped."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = {}
        self._parked = {}
        self._changed = asyncio.Event()

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        name = asyncio.current_task().get_name()
        gate = asyncio.get_running_loop().create_future()
        self.pauses[name] = seconds
        self._parked[name] = gate
        self._changed.set()
        try:
            await gate
        finally:
            if self._parked.get(name) is gate:
                del self._parked[name]

    async def wait(self, *names):
        async with asyncio.timeout(DEADLINE_S):
            while not all(name in self._parked for name in names):
                self._changed.clear()
                await self._changed.wait()

    async def release(self, *names):
        await self.wait(*names)
        for name in names:
            self._parked.pop(name).set_result(None)

    async def step(self, *names):
        """Let the loops look once."""
        await self.release(*names)
        await self.wait(*names)


class ListeningFleet(FleetState):
    """The fleet, and all that it was told, in order."""

    def __init__(self):
        super().__init__()
        self.told = []

    def sampled(self, replica, sample, now):
        self.told.append(("sampled", replica.name))
        super().sampled(replica, sample, now)

    def sample_failed(self, replica, reason):
        self.told.append(("sample_failed", replica.name))
        super().sample_failed(replica, reason)

    def health_seen(self, replica, *, healthy, reason):
        self.told.append(("healthy" if healthy else "unhealthy", replica.name))
        return super().health_seen(replica, healthy=healthy, reason=reason)

    def models_seen(self, replica, models, entries=None):
        self.told.append(("models", replica.name))
        return super().models_seen(replica, models, entries)


class Rig:
    """A poller over fake replicas, stepped by hand."""

    def __init__(self, poller, fleet, pacer):
        self.poller = poller
        self.fleet = fleet
        self.pacer = pacer

    def watch(self, fake, engine="auto", name="r"):
        replica = self.fleet.add(name, fake.url)
        self.poller.watch(replica, engine)
        return replica

    async def health(self, name="r"):
        await self.pacer.step(f"health of {name}")

    async def load(self, name="r"):
        await self.pacer.step(f"load of {name}")

    async def both(self, name="r"):
        await self.health(name)
        await self.load(name)


@contextlib.asynccontextmanager
async def started(fake, *, path=None):
    await fake.start(path)
    try:
        yield fake
    finally:
        await fake.stop()


@contextlib.asynccontextmanager
async def rigged(fleet=None, **config):
    fleet = fleet or ListeningFleet()
    pacer = Pacer()
    poller = Poller(
        PollingConfig(**config), fleet, clock=pacer.clock, sleep=pacer.sleep, rng=Random(7)
    )
    await poller.start()
    try:
        yield Rig(poller, fleet, pacer)
    finally:
        await poller.aclose()
