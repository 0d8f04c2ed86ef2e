"""Replicas taken out of service by command, while they answer."""

from __future__ import annotations

import asyncio

from tests.e2e.marks import e2e
from tests.fakes.command import pointsman, start_pointsman
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import OK

pytestmark = e2e("draining")

REPLICAS = [["m"], ["m"]]


async def ask(router):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", b'{"model": "m", "prompt": "a"}'))
        return await client.answer()


async def test_a_drain_waits_for_what_is_under_way_and_lets_nothing_new_begin(router, replicas):
    busy, other = replicas
    came, release = asyncio.Event(), asyncio.Event()

    async def respond(exchange):
        await exchange.read_body()
        came.set()
        await release.wait()
        exchange.send(OK)

    busy.respond = respond
    asked = [asyncio.create_task(ask(router)) for _ in range(2)]
    await asyncio.wait_for(came.wait(), DEADLINE_S)
    admin = ("--admin", router.admin_url)
    draining = await start_pointsman("drain", busy.url, "--wait", *admin)
    line = await asyncio.wait_for(draining.stderr.readline(), DEADLINE_S)
    assert line.endswith(b": 1 request has to end\n")
    before = len(other.requests)
    for _ in range(3):
        assert (await ask(router)).status == 200
    assert len(other.requests) == before + 3
    assert draining.returncode is None
    status, _, err = await pointsman("drain", other.url, *admin)
    assert status == 2
    assert "would leave 0 replicas in service, at least 1 must stay" in err
    release.set()
    out, _ = await asyncio.wait_for(draining.communicate(), DEADLINE_S)
    assert (draining.returncode, out.endswith(b" has no requests\n")) == (0, True)
    assert [answer.status for answer in await asyncio.gather(*asked)] == [200, 200]
    status, out, err = await pointsman("undrain", busy.url, *admin)
    assert (status, err) == (0, "")
    before = len(busy.requests)
    for _ in range(20):
        assert (await ask(router)).status == 200
    assert len(busy.requests) > before
