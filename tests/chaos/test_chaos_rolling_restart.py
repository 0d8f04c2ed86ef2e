"""Every replica is drained and restarted in its turn, and no client notices."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.chaos.fleet import Size
from tests.chaos.report import SCALE
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300 + 100 * SCALE)]

POINTSMAN = str(Path(sys.executable).parent / "pointsman")


async def drain(stage, replica):
    """``pointsman drain URL --wait``, as an operator calls it."""
    arguments = ["drain", replica.url, "--wait", "--admin", stage.router.admin_url]
    process = await asyncio.create_subprocess_exec(
        POINTSMAN,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def test_a_rolling_restart_of_the_fleet(tmp_path, report):
    async with staged(Size(replicas=8, slots=5), tmp_path) as stage:
        clock = asyncio.get_running_loop().time
        async with stage.load(0.6, seed=41).going() as run:
            began_s = clock()
            for replica in stage.fleet:
                await drain(stage, replica)
                await replica.terminate()
                await replica.restart()
                await stage.until(replica, lambda view: view["ready"])
            took_s = clock() - began_s
        await stage.router.drained()
        figures = {**run.figures(), **await stage.recovery_figures()}
        report.add(
            "5. All 8 replicas restarted in turn with pointsman drain at 60 % load",
            "no error, no continuation needed",
            {**figures, "took_s": round(took_s, 1)},
        )
    assert run.count(Ending.EQUAL) == len(run.outcomes)
    assert figures["continued"] == figures["retries"] == 0
