from __future__ import annotations

import pytest
from polling_rig import FakeReplica, rigged, started


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
