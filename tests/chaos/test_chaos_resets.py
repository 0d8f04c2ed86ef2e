"""Thousands of clients reset their connections, and nothing of them is left."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from tests.chaos.fleet import Size
from tests.chaos.report import SCALE
from tests.chaos.stage import staged

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200 + 200 * SCALE)]

CLIENTS = int(10_000 * SCALE)


async def test_clients_that_reset_en_masse(tmp_path, report):
    async with staged(Size(replicas=3, slots=16), tmp_path) as stage:
        clock = asyncio.get_running_loop().time
        process = psutil.Process(stage.router.pid)
        await stage.resets(200, at_once=40, seed=30)  # whatever is remembered is remembered now
        await stage.router.drained()
        descriptors, resident = await stage.descriptors(), process.memory_info().rss
        began_s = clock()
        left = await stage.resets(CLIENTS, at_once=40, seed=31)
        took_s = clock() - began_s
        await stage.nothing_leaked(descriptors)
        gone = await stage.metric("pointsman_requests_ended_total{")
        report.add(
            f"6. {CLIENTS} clients that reset their connections at random moments",
            "no attempt, connection, buffer, held request or file descriptor is left",
            {
                "left": left,
                "requests_seen": gone,
                "took_s": round(took_s, 1),
                "resident_more_kib": (process.memory_info().rss - resident) // 1024,
            },
        )
    assert left == CLIENTS
