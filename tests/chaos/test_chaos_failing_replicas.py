"""The busiest replica fails, again and again, and no client notices more than a pause."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.faults import Kill, Stop, befalling
from tests.chaos.fleet import Size
from tests.chaos.report import SCALE
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400 + 300 * SCALE)]

EVERY_S = 20.0
FOR_S = 120.0 * SCALE
OUT_S = 8.0


@pytest.mark.parametrize("fault", [Kill(), Stop()], ids=lambda fault: fault.name)
async def test_the_busiest_replica_fails_again_and_again(fault, tmp_path, report):
    async with staged(Size(replicas=6, slots=6), tmp_path, tokens=100) as stage:
        clock = asyncio.get_running_loop().time
        async with stage.load(0.6, seed=11).going() as run:
            ends_s, faults = clock() + FOR_S, 0
            while clock() < ends_s:
                next_s = clock() + EVERY_S
                await asyncio.sleep(2.0)
                async with befalling(fault, [await stage.busiest()]):
                    await asyncio.sleep(OUT_S)
                faults += 1
                await asyncio.sleep(max(next_s - clock(), 0.0))
        await stage.router.drained()
        report.add(
            f"1. 6 replicas at 60 % load, one {fault.name} every {EVERY_S:g} s",
            "no request fails, every text is equal, gap <= 1.5 s + re-prefill (SIGKILL)",
            {
                "faults": faults,
                **run.figures(),
                **await stage.recovery_figures(),
                "alone_s": round(stage.book.alone_s, 2),
            },
        )
    assert run.bad() == []
    assert run.count(Ending.EQUAL) == len(run.outcomes)
