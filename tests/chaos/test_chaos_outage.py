"""The whole fleet is gone for a while: who can wait is served afterwards, who cannot is told so."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.faults import Kill, befalling
from tests.chaos.fleet import Size
from tests.chaos.report import SCALE
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200 + 100 * SCALE)]

OUTAGE_S = 20.0


@pytest.mark.parametrize("hold_s", [40.0, 8.0])
async def test_an_outage_of_the_whole_fleet(hold_s, tmp_path, report):
    size = Size(replicas=4)
    async with staged(size, tmp_path, hold={"outage_s": hold_s}) as stage:
        clock = asyncio.get_running_loop().time
        async with stage.load(0.3, seed=21).going() as run:
            await asyncio.sleep(5.0)
            began_s = clock()
            async with befalling(Kill(), stage.fleet):
                await asyncio.sleep(OUTAGE_S)
            await stage.all_ready()
            back_s = clock() - began_s
            await asyncio.sleep(5.0)
        await stage.router.drained()
        figures = {**run.figures(), **await stage.recovery_figures()}
        waited = [o for o in run.outcomes if o.first_s is None or o.first_s - o.began_s > 2.0]
        report.add(
            f"4. All 4 replicas out for {OUTAGE_S:g} s, requests wait up to {hold_s:g} s",
            "who may wait so long succeeds, others get a clear 503; attempts a request <= 1.25",
            {**figures, "outage_s": round(back_s, 1), "waited": len(waited)},
        )
    assert all(o.status == 503 for o in run.outcomes if o.ending is Ending.REFUSED)
    assert run.count(Ending.ALTERED) == 0
    assert figures["attempts_per_request"] <= 1.25
    if hold_s > OUTAGE_S:
        assert [o for o in run.outcomes if o.ending is not Ending.EQUAL] == []
    else:  # what was being streamed when all failed could not wait so long either
        assert run.count(Ending.REFUSED) > 0
        assert all(o.first_s is not None for o in run.bad())
