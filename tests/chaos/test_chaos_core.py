"""The short core of the chaos tests: real processes, real signals, every text checked."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.chaos.fleet import Size
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("chaos")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_stage(tmp_path_factory):
    async with staged(Size(replicas=3), tmp_path_factory.mktemp("chaos")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def stage(module_stage):
    await module_stage.all_ready()
    yield module_stage
    await module_stage.router.drained()


async def busy(stage, replica):
    """Wait until streams are under way there."""
    await stage.until(replica, lambda view: view["in_flight"] >= 2)


async def test_streams_outlive_killed_replicas(stage):
    continued = await stage.metric('pointsman_continuations_total{outcome="continued"}')
    async with stage.load(0.5, seed=1).going() as run:
        for replica in stage.fleet[:2]:
            await busy(stage, replica)
            await replica.kill()
            await replica.restart()
            await stage.until(replica, lambda view: view["ready"])
    assert run.bad() == []
    assert run.count(Ending.EQUAL) == len(run.outcomes)
    assert await stage.metric('pointsman_continuations_total{outcome="continued"}') > continued
