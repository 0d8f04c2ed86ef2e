"""A replica that comes back computes what most prompts begin with, before it is asked for it."""

from __future__ import annotations

import asyncio
import json

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.serve_process import eventually

pytestmark = e2e("warm-up")

REPLICAS = [["m"], ["m"]]
CONFIG = {"policy": {"name": "least_estimated_completion"}}
SYSTEM = "All of this stands before each question. " * 300


def asking(question):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body = {"model": "m", "messages": messages, "max_tokens": 50, "n": 2, "user": question}
    return json.dumps(body).encode()


async def ask(router, question):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/chat/completions", asking(question)))
        assert (await client.answer()).status == 200


async def until_ready(router, replica, wanted):
    async def look():
        page = await router.fleet()
        view = next(r for r in page["replicas"] if r["url"] == replica.url)
        return view["ready"] is wanted

    async with asyncio.timeout(DEADLINE_S):
        await eventually(look)


async def test_the_hottest_prompt_is_computed_by_a_replica_that_comes_back(router, replicas):
    for number in range(5):
        await ask(router, f"{number} is what?")
    asked = [len(replica.requests) for replica in replicas]
    assert sum(asked) == 5
    gone = replicas[0]
    await gone.stop()
    await until_ready(router, gone, wanted=False)
    await gone.start_again()
    recorded = await gone.arrived(asked[0] + 1)

    async def told():
        return 'pointsman_warm_up_requests_total{outcome="ok"} 1.0' in await router.metrics()

    async with asyncio.timeout(DEADLINE_S):
        await eventually(told)
    assert recorded.line == b"POST /v1/chat/completions HTTP/1.1"
    fields = json.loads(recorded.content)
    assert fields["messages"][0]["content"] == SYSTEM
    assert (fields["max_tokens"], "n" in fields) == (1, False)
    await until_ready(router, gone, wanted=True)
