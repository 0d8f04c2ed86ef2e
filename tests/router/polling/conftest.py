from __future__ import annotations

import pytest
import uvloop
from polling_rig import FakeReplica, rigged, started


def pytest_asyncio_loop_factories():
    """The event loop that the router runs on; its errors differ in places from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def fake():
    """A replica that answers like vLLM."""
    async with started(FakeReplica.vllm()) as replica:
        yield replica


@pytest.fixture
async def rig():
    """A running poller that watches nobody yet."""
    async with rigged(timeout_s=5.0) as made:
        yield made


@pytest.fixture
async def hasty():
    """A running poller that gives up on a look soon."""
    async with rigged(timeout_s=0.1) as made:
        yield made
