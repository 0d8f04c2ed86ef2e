"""The short core of the chaos tests: real processes, real signals, every text checked."""

from __future__ import annotations

import asyncio
import signal

import pytest
import pytest_asyncio

from tests.chaos.faults import Kill, Stop, befalling
from tests.chaos.fleet import Size
from tests.chaos.saboteur import Spoil
from tests.chaos.stage import staged
from tests.chaos.stream import Ending, connect
from tests.fakes.serve_process import ServeProcess

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("chaos")]

CONTINUED = 'pointsman_continuations_total{outcome="continued"}'
QUICK = [Spoil.RESET, Spoil.FIN, Spoil.GARBAGE, Spoil.SHORT, Spoil.TRUNCATED, Spoil.LATE]
"""Those that are noticed at once, and one that comes with the connections that replace broken
ones."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos")
    policy = {"name": "least_requests"}  # each replica has its share, so each fault hits
    async with staged(Size(replicas=3), folder, wired=1, prompts=12, policy=policy) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def stage(module_stage):
    await module_stage.all_ready()
    yield module_stage
    await module_stage.router.drained()


def flawless(run):
    """Every client was told what an undisturbed replica says."""
    assert run.bad() == []
    return len(run.outcomes) == run.count(Ending.EQUAL) > 0


async def busy(stage, replica):
    """Wait until streams are under way there."""
    await stage.until(replica, lambda view: view["in_flight"] >= 2)


async def test_broken_wires_break_no_stream(stage):
    saboteur = stage.fleet[0].saboteur
    async with stage.load(0.4, seed=2).going() as run:
        for spoil in QUICK:
            saboteur.arm(spoil)
            async with asyncio.timeout(20):
                await saboteur.struck.acquire()
    assert flawless(run)


async def test_streams_outlive_killed_replicas(stage):
    continued = await stage.metric(CONTINUED)
    async with stage.load(0.5, seed=1).going() as run:
        for replica in stage.fleet[1:]:
            await busy(stage, replica)
            async with befalling(Kill(), [replica]):
                await stage.until(replica, lambda view: not view["ready"])
            await stage.until(replica, lambda view: view["ready"])
    assert flawless(run)
    assert await stage.metric(CONTINUED) > continued


async def test_streams_outlive_a_stopped_replica(stage):
    continued = await stage.metric(CONTINUED)
    replica = stage.fleet[1]
    async with stage.load(0.4, seed=3).going() as run:
        await busy(stage, replica)
        async with befalling(Stop(), [replica]):
            await stage.until(replica, lambda view: view["in_flight"] == 0)
    assert flawless(run)
    assert await stage.metric(CONTINUED) > continued


async def test_requests_outlast_an_outage_of_the_whole_fleet(stage):
    async with stage.load(0.3, seed=4).going() as run:
        await busy(stage, stage.fleet[2])
        async with befalling(Kill(), stage.fleet):
            await stage.until_held(3)
    assert flawless(run)


async def test_clients_that_reset_leave_nothing_behind(stage):
    descriptors = await stage.descriptors()
    assert await stage.resets(200, at_once=25, seed=5) == 200
    await stage.nothing_leaked(descriptors)


async def test_a_router_that_is_told_to_end_lets_its_streams_end(stage, tmp_path):
    replicas = [{"url": replica.url, "engine": "vllm"} for replica in stage.fleet]
    router = ServeProcess({"replicas": replicas}, tmp_path)
    await router.start()
    answers = stage.book.answers
    clients = [await connect(router.url, asked) for asked, _ in answers]
    await asyncio.gather(*(client.begun.wait() for client in clients))
    router.signal(signal.SIGTERM)
    await asyncio.gather(*(client.over for client in clients))
    for client, (_, wanted) in zip(clients, answers, strict=True):
        outcome = client.outcome(wanted)
        assert outcome.ending is Ending.EQUAL, outcome
    await router.stop()
