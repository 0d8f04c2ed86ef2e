"""The router runs out of file descriptors: whom it serves is served on, no replica is blamed."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from tests.chaos.fleet import Size
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200)]

SPARE = 12


async def test_without_descriptors_newcomers_are_turned_away_and_nobody_else(tmp_path, report):
    async with staged(Size(replicas=3, slots=8), tmp_path) as stage:
        router = psutil.Process(stage.router.pid)
        limits = router.rlimit(psutil.RLIMIT_NOFILE)
        async with stage.load(0.9, seed=51).going() as run:
            router.rlimit(psutil.RLIMIT_NOFILE, (router.num_fds() + SPARE, limits[1]))
            await asyncio.sleep(10.0)
            router.rlimit(psutil.RLIMIT_NOFILE, limits)
            views = [await stage.view(replica) for replica in stage.fleet]
        async with stage.load(0.5, seed=52).going() as after:
            await asyncio.sleep(5.0)
        await stage.router.drained()
        report.add(
            "8. The router has file descriptors for 12 connections more than when idle",
            "who was let in is served to the end, no replica is blamed, and afterwards all is well",
            {**run.figures(), "afterwards": after.figures()},
        )
    turned_away = [o for o in run.outcomes if o.ending is not Ending.EQUAL]
    assert turned_away
    assert [o for o in turned_away if o.status] == [], "a client had a part of an answer"
    assert [view["health"]["ejected_total"] for view in views] == [0, 0, 0]
    assert after.count(Ending.EQUAL) == len(after.outcomes)
