"""A replica that is stopped in the midst of its streams: they go on elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest_asyncio

from loadgen.trial.processes import Processes
from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.serve_process import ServeProcess, eventually
from tests.fakes.streaming_engines import text_of

pytestmark = e2e("stalls")

PATH = "/v1/completions"
ENGINE = ["replica", "--port", "0", "--engine", "vllm", "--model", "m", "--load-time", "0"]


def asking(prompt, tokens):
    """A request whose answer is a stream of so many tokens."""
    fields = {"model": "m", "stream": True, "prompt": prompt, "max_tokens": tokens}
    return json.dumps(fields | {"min_tokens": tokens}).encode()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet():
    async with Processes() as processes:
        children = {}
        for number in range(2):
            child = await processes.start(f"replica {number}", ENGINE)
            children[await child.told("http://")] = child
        yield children


@pytest_asyncio.fixture(loop_scope="module")
async def router(fleet, tmp_path):
    config = {
        "replicas": [{"url": f"http://{name}", "engine": "vllm"} for name in fleet],
        "policy": {"name": "round_robin"},
    }
    process = ServeProcess(config, tmp_path)
    await process.start()

    async def ready():
        return all(replica["ready"] for replica in (await process.fleet())["replicas"])

    async with asyncio.timeout(20):
        await eventually(ready)
    yield process
    await process.stop()


async def test_a_stream_outlives_the_stop_of_the_process_that_writes_it(router, fleet):
    body = asking("What is slow?", 200)
    async with raw_client(router.url) as client:
        unbroken = set()
        for _ in fleet:  # from these the router learns how fast they are
            client.write(request("POST", PATH, body))
            unbroken.add(text_of((await client.answer()).body, "completion")[0])
        (text,) = unbroken
        begun = len(client.received)
        client.write(request("POST", PATH, body))
        while client.received.count(b"data:", begun) < 60:
            assert await client.more()
        head = bytes(client.received[begun:]).partition(b"\r\n\r\n")[0].lower()
        name = head.partition(b"x-pointsman-replica: ")[2].partition(b"\r\n")[0].decode()
        pid = fleet[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                answer = await client.answer()
        finally:
            os.kill(pid, signal.SIGCONT)  # it could not end otherwise
    assert answer.complete
    assert text_of(answer.body, "completion")[0] == text
    page = await router.metrics()
    assert 'pointsman_attempt_failures_total{kind="stall"} 1.0' in page
    stopped = {r["name"]: r["health"] for r in (await router.fleet())["replicas"]}[name]
    assert (stopped["state"], stopped["cause"]) in {("ejected", "stall"), ("down", "health_down")}
