"""One router process a test module, raw replicas behind it, and an empty house after each test.

A module may set ``CONFIG`` (configuration of the router as plain data), ``REPLICAS`` (names of
the models of each replica) and ``ROLES`` (what each is there for). The replicas live in the
module's event loop, so its tests must too: ``pytestmark = e2e("name")``.
"""

from __future__ import annotations

import pytest_asyncio

from tests.fakes.raw_replica import RawReplica
from tests.fakes.serve_process import ServeProcess


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_replicas(request):
    made = [RawReplica(*models) for models in getattr(request.module, "REPLICAS", [["m"]])]
    for replica in made:
        await replica.start()
    yield made
    for replica in made:
        await replica.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_router(request, module_replicas, tmp_path_factory):
    roles = getattr(request.module, "ROLES", ["both"] * len(module_replicas))
    config = {
        "replicas": [
            {"url": replica.url, "engine": "generic", "role": role}
            for replica, role in zip(module_replicas, roles, strict=True)
        ],
        "policy": {"name": "round_robin"},
    }
    config |= getattr(request.module, "CONFIG", {})
    process = ServeProcess(config, tmp_path_factory.mktemp("serve"))
    await process.start()
    yield process
    await process.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(module_replicas):
    for replica in module_replicas:
        await replica.fresh()
    yield module_replicas
    for replica in module_replicas:
        assert replica.failures == []


@pytest_asyncio.fixture(loop_scope="module")
async def replica(replicas):
    return replicas[0]


@pytest_asyncio.fixture(loop_scope="module")
async def router(module_router, replicas):
    yield module_router
    await module_router.drained()
