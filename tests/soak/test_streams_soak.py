"""2,000 streams at once through one process: no error, no lost byte, memory that stays flat."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.fakes.serve_process import ServeProcess

pytestmark = [
    pytest.mark.soak,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("soak"),
]

ROOT = Path(__file__).parents[2]
REPLICAS = 4
STREAMS = 2000
GAP_MS = 200
LONG_EVENTS = 150
"""30 s of stream."""
SHORT_EVENTS = 15
ROUNDS = 10
WARM_UP_ROUNDS = 3
BYTES_PER_STREAM = 64 * 1024
FLAT_BYTES = 4 * 1024 * 1024
"""How much the resident memory of the drained router may move once it is warm."""
SAMPLE_S = 0.25


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def replicas():
    started = []
    urls = []
    for _ in range(REPLICAS):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.fakes.fast_replica",
            "--gap-ms",
            str(GAP_MS),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        urls.append(f"http://127.0.0.1:{int(await process.stdout.readline())}")
    yield urls
    for process in started:
        process.terminate()
        await process.wait()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def router(replicas, tmp_path_factory):
    process = ServeProcess(
        {"replicas": [{"url": url} for url in replicas]}, tmp_path_factory.mktemp("soak")
    )
    await process.start()
    yield process
    await process.stop()


async def streams(router, events, *, first_seed, leave_every=0):
    """Run one round; returns its result and the most memory that the router had meanwhile."""
    port = router.url.rpartition(":")[2]
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.soak.streams",
        "--port",
        port,
        "--streams",
        str(STREAMS),
        "--events",
        str(events),
        "--first-seed",
        str(first_seed),
        "--leave-every",
        str(leave_every),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output = asyncio.create_task(client.stdout.read())
    router_process, highest = psutil.Process(router.pid), 0
    while not output.done():
        highest = max(highest, router_process.memory_info().rss)
        await asyncio.wait([output], timeout=SAMPLE_S)
    assert await client.wait() == 0
    return json.loads(output.result()), highest


async def test_2000_streams_for_30_s(router):
    idle = psutil.Process(router.pid).memory_info().rss
    result, highest = await streams(router, LONG_EVENTS, first_seed=10_000)
    assert result["complete"] == STREAMS, result
    per_stream = (highest - idle) / STREAMS
    print(f"resident: {idle / 2**20:.1f} MiB idle, {per_stream / 1024:.1f} KiB a stream above it")
    assert per_stream <= BYTES_PER_STREAM
    await router.drained()


async def test_memory_is_flat_over_rounds_in_which_some_clients_leave(router):
    resident = []
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        seed = 100_000 + number * STREAMS
        result, _ = await streams(router, SHORT_EVENTS, first_seed=seed, leave_every=4)
        assert result["broken"] == result["altered"] == 0, result
        assert result["left"] == STREAMS // 4
        assert result["complete"] == STREAMS - STREAMS // 4
        await router.drained()
        resident.append(psutil.Process(router.pid).memory_info().rss)
    print("resident after each round:", *(f"{size / 2**20:.1f}" for size in resident), "MiB")
    warm = resident[WARM_UP_ROUNDS:]
    assert max(warm[-3:]) - max(warm[:3]) <= FLAT_BYTES
