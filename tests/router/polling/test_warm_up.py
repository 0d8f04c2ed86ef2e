"""A warm-up that does not go well ends, and says so."""

from __future__ import annotations

import asyncio
import logging

import pytest
from polling_rig import FakeReplica, Hang, started

from policies.base import RequestFacts
from router.core.fleet import FleetState
from router.core.hot_prompts import HotPrompts
from router.core.prefix_index import PrefixIndex
from router.polling.warm_up import WarmUp

PATH = "/v1/completions"
BLOCK = 256


class Warming:
    """Two hot prompts, a replica that has just come up, and who warms it."""

    def __init__(self, url, *, body=b'{"prompt": "a"}'):
        self.index = PrefixIndex()
        hot = HotPrompts(8)
        for stem in (1, 1, 1, 2, 2, 2):
            prefix = tuple(range(stem * 100, stem * 100 + 9))
            cached = {"other": 8 * BLOCK}
            facts = RequestFacts(prefix=prefix, prefix_block_tokens=BLOCK, cached=cached)
            hot.saw(facts, PATH.encode(), body)
        self.warm_up = WarmUp(hot, self.index)
        fleet = FleetState()
        self.replica = fleet.add("r", url)
        fleet.models_seen(self.replica, ["m"])
        fleet.health_seen(self.replica, healthy=True, reason="ok", now=1.0)

    async def run(self):
        self.warm_up.begin(self.replica)
        async with asyncio.timeout(10):
            await asyncio.gather(*self.warm_up._errands._tasks.values())

    @property
    def known(self):
        prefixes = (tuple(range(100, 108)), tuple(range(200, 208)))
        return [self.index.match(prefix, BLOCK).get("r", 0) for prefix in prefixes]


@pytest.fixture
async def fake():
    async with started(FakeReplica.vllm()) as replica:
        replica.answers[PATH] = (200, b"{}")
        yield replica


async def test_what_was_computed_is_known_to_be_there_and_not_computed_again(fake):
    warming = Warming(fake.url)
    await warming.run()
    assert warming.warm_up.outcomes == {"ok": 2, "failed": 0}
    assert warming.known == [8 * BLOCK, 8 * BLOCK]
    await warming.run()
    assert fake.asked.count(PATH) == 2


@pytest.mark.parametrize("status", [401, 500])
async def test_one_refusal_ends_it(fake, status, caplog):
    fake.answers[PATH] = (status, b"")
    warming = Warming(fake.url)
    with caplog.at_level(logging.WARNING, "pointsman.polling"):
        await warming.run()
    assert warming.warm_up.outcomes == {"ok": 0, "failed": 1}
    assert warming.known == [0, 0]
    assert f"r: its warm-up ends early: {PATH} answers {status}" in caplog.text


async def test_a_request_that_cannot_be_read_is_no_sample(fake, caplog):
    warming = Warming(fake.url, body=b"[")
    await warming.run()
    assert warming.warm_up.outcomes == {"ok": 0, "failed": 1}
    assert PATH not in fake.asked


async def test_the_router_ends_without_waiting_for_it(fake):
    hang = fake.answers[PATH] = Hang()
    warming = Warming(fake.url)
    warming.warm_up.begin(warming.replica)
    async with asyncio.timeout(10):
        await hang.reached.wait()
        await warming.warm_up.aclose()
    hang.let_go.set()
    assert warming.warm_up.outcomes == {"ok": 0, "failed": 0}
