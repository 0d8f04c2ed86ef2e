"""A simulated replica in this process, behind a real socket."""

import contextlib
import json

import aiohttp
import pytest

from loadgen.engine.profile import load_profile
from loadgen.replica.serving import served
from loadgen.replica.settings import ReplicaSettings


class Client:
    """Talks to one replica."""

    def __init__(self, replica, url, session, crashes):
        self.replica, self.url, self.session, self.crashes = replica, url, session, crashes

    async def post(self, path, body, **more):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        async with self.session.post(self.url + path, data=body, **more) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path):
        async with self.session.get(self.url + path) as response:
            return response.status, await response.read()

    async def stream(self, path, body):
        """All events of a stream, decoded; the last one is the end mark, if there was one."""
        body = json.dumps({"stream": True, **body}).encode()
        async with self.session.post(self.url + path, data=body) as response:
            assert response.status == 200, await response.text()
            return events(await response.read())

    async def gauges(self):
        page = (await self.get("/metrics"))[1].decode()
        return {
            line.rpartition(" ")[0].partition("{")[0]: float(line.rpartition(" ")[2])
            for line in page.splitlines()
            if not line.startswith("#")
        }

    def assert_idle(self):
        engine = self.replica.engine
        assert not engine.running
        assert not engine.waiting
        assert engine.kv_blocks_in_use == 0
        assert self.replica.driver.open == 0


def events(body):
    texts = [part.removeprefix("data: ") for part in body.decode().split("\n\n") if part]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


@pytest.fixture
async def start():
    """Starts replicas and stops them at the end, at which each must be idle."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def one(profile="8b-h100", *, grace_s=0.0, speed=50.0, **settings):
            crashes = []
            context = served(
                ReplicaSettings(profile=load_profile(profile), speed=speed, **settings),
                "127.0.0.1",
                0,
                crash=lambda: crashes.append(True),
                grace_s=grace_s,
            )
            replica, url = await stack.enter_async_context(context)
            client = Client(replica, url, session, crashes)
            stack.callback(client.assert_idle)
            return client

        yield one


@pytest.fixture
async def client(start):
    return await start()
