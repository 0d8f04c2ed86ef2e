"""One replica turns five times as slow and stays up: the others take its share."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.faults import Own, befalling
from tests.chaos.fleet import Size
from tests.chaos.load import quantile
from tests.chaos.report import SCALE
from tests.chaos.stage import staged

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200 + 200 * SCALE)]

SLOW = Own("five times as slow", {"slow": 5.0})
NOTICED_S = 5.0
FOR_S = 30.0 * SCALE


async def test_a_replica_turns_five_times_as_slow(tmp_path, report):
    async with staged(Size(replicas=6, slots=6), tmp_path) as stage:
        clock = asyncio.get_running_loop().time
        async with stage.load(0.5, seed=41).going() as whole:
            await asyncio.sleep(FOR_S)
        slow = await stage.busiest()
        async with stage.load(0.5, seed=41).going() as run:
            await asyncio.sleep(5.0)
            began_s = clock()
            async with befalling(SLOW, [slow]):
                await asyncio.sleep(NOTICED_S + FOR_S)
                view = await stage.view(slow)
                ended_s = clock()
        await stage.router.drained()
        after = [o for o in run.outcomes if began_s + NOTICED_S <= o.began_s < ended_s]
        share = sum(o.replica == slow.address for o in after) / len(after)
        normal_s, slow_s = (
            quantile([o.ttft_s for o in outcomes if o.ttft_s is not None], 0.99)
            for outcomes in (whole.outcomes, [o for o in run.outcomes if o.began_s >= began_s])
        )
        report.add(
            "3. One of 6 replicas turns 5 times as slow",
            "its share is cut within 5 s; p99 TTFT <= 1.3 x that of the same load without it",
            {
                "share_of_fair": round(share * 6, 2),
                "ttft_p99_without_s": normal_s,
                "ttft_p99_s": slow_s,
                "ratio": round(slow_s / normal_s, 2),
                "health": view["health"],
                **run.figures(),
            },
        )
    assert run.bad() == []
    assert share * 6 <= 0.5
