"""Faults of all kinds, one after the other and one beside the other, as a seed has it."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.chaos.faults import OWN_FAULTS, Kill, Stop, befalling
from tests.chaos.fleet import Size
from tests.chaos.report import SCALE
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

if TYPE_CHECKING:
    from tests.chaos.faults import Fault

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200 + 200 * SCALE)]

FOR_S = 60.0 * SCALE
LANES = 2
"""So many replicas of the six are unwell at a time."""
FAULTS: tuple[Fault, ...] = (Kill(), Kill(), Stop(), *OWN_FAULTS)


@pytest.fixture
def seed():
    """From ``CHAOS_SEED``, to play a run again; else a new one."""
    given = os.environ.get("CHAOS_SEED")
    return int(given) if given else random.SystemRandom().randrange(10**6)


async def test_no_stream_is_lost_whatever_happens_next(seed, tmp_path, report, capsys):
    with capsys.disabled():
        print(f"\nCHAOS_SEED={seed} plays this again")
    rng, told = random.Random(seed), []
    async with staged(Size(replicas=6, slots=6), tmp_path, tokens=60) as stage:
        clock = asyncio.get_running_loop().time
        free = list(stage.fleet)

        async def lane(until_s: float) -> None:
            while clock() < until_s:
                await asyncio.sleep(rng.uniform(0.5, 3.0))
                replica = free.pop(rng.randrange(len(free)))
                fault, for_s = rng.choice(FAULTS), rng.uniform(1.0, 8.0)
                told.append(f"{fault.name}, {for_s:.1f} s")
                async with befalling(fault, [replica]):
                    await asyncio.sleep(for_s)
                await stage.until(replica, lambda view: view["healthy"])
                free.append(replica)

        async with stage.load(0.4, seed=seed).going() as run:
            await asyncio.gather(*(lane(clock() + FOR_S) for _ in range(LANES)))
        await stage.router.drained()
        report.add(
            f"7. Faults at random, two of six replicas at a time (CHAOS_SEED={seed})",
            "no stream is broken or altered, nobody is refused",
            {
                "faults": "; ".join(told),
                **run.figures(),
                **await stage.recovery_figures(),
            },
        )
    assert run.bad() == []
    assert run.count(Ending.EQUAL) == len(run.outcomes)
