"""A replica is configured by a name whose address changes while the router runs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from router.app import App
from router.config.structs import Config, ReplicaConfig
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import RawReplica
from tests.fakes.serve_process import eventually

NAME = "engine.test"


class Names:
    """Where the name leads; all others are looked up as ever."""

    def __init__(self) -> None:
        self.address = ""
        self._look_up = socket.getaddrinfo

    def __call__(self, host, port, *args, **kwargs):
        if host != NAME:
            return self._look_up(host, port, *args, **kwargs)
        address, _, port = self.address.partition(":")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port)))]


@pytest.fixture
def names(monkeypatch):
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


@asynccontextmanager
async def started():
    replica = RawReplica("m")
    await replica.start()
    try:
        yield replica
    finally:
        await replica.stop()


async def test_requests_follow_a_name_to_its_new_address(names):
    async with started() as before, started() as after:
        names.address = before.address
        replicas = [ReplicaConfig(url=f"http://{NAME}:80", name="a", engine="generic")]
        config = Config(listen=["127.0.0.1:0"], admin="127.0.0.1:0", replicas=replicas)
        app = App(config, asyncio.get_running_loop())
        (url,), _ = await app.start()

        async def ready():
            return app.fleet.replicas["a"].ready

        try:
            async with asyncio.timeout(10), raw_client(url) as client:
                await eventually(ready)
                client.write(request())
                assert (await client.answer()).status == 200
                names.address = after.address
                await before.stop()
                client.write(request())
                assert (await client.answer()).status == 200
        finally:
            await app.stop(0)
        assert (len(before.requests), len(after.requests)) == (1, 1)
