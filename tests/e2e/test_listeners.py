"""Where clients and replicas may be: TCP over IPv4 and IPv6, and Unix sockets, on both sides."""

from __future__ import annotations

import asyncio
import signal

import pytest
import pytest_asyncio

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import RawReplica, chunked, http
from tests.fakes.serve_process import ServeProcess, eventually

pytestmark = e2e("listeners")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def replicas(tmp_path_factory):
    made = [RawReplica(), RawReplica(), RawReplica()]
    await made[0].start()
    await made[1].start(host="::1")
    await made[2].start(unix_path=str(tmp_path_factory.mktemp("u") / "replica.sock"))
    yield made
    for replica in made:
        await replica.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def everywhere(replicas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("u")
    config = {
        "listen": ["127.0.0.1:0", "[::1]:0", f"unix:{folder}/pointsman.sock"],
        "replicas": [{"url": replica.url, "engine": "generic"} for replica in replicas],
        "policy": {"name": "round_robin"},
    }
    process = ServeProcess(config, folder)
    await process.start()

    async def all_ready():
        return all(replica["ready"] for replica in (await process.fleet())["replicas"])

    await asyncio.wait_for(eventually(all_ready), DEADLINE_S)
    yield process
    await process.stop()
    assert not (folder / "pointsman.sock").exists()


@pytest.mark.parametrize("number", [0, 1, 2], ids=["IPv4", "IPv6", "Unix"])
async def test_every_listener_reaches_every_replica(everywhere, replicas, number):
    names = set()
    async with raw_client(everywhere.urls[number]) as client:
        for _ in range(6):
            client.write(request())
            answer = await client.answer()
            assert answer.status == 200
            names.add(answer.value("x-pointsman-replica"))
    assert len(names) == 3
    await everywhere.drained()


async def test_the_clients_address_is_told_where_it_has_one(everywhere, replicas):
    seen = []
    for url in everywhere.urls:
        for replica in replicas:
            replica.requests.clear()
        async with raw_client(url) as client:
            client.write(request())
            assert (await client.answer()).status == 200
        recorded = [recorded for replica in replicas for recorded in replica.requests]
        seen.append(recorded[0].value(b"x-forwarded-for"))
    assert seen == [b"127.0.0.1", b"::1", None]


# -- the process's own life -----------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def alone(tmp_path):
    replica = RawReplica()
    await replica.start()
    process = ServeProcess({"replicas": [{"url": replica.url, "engine": "generic"}]}, tmp_path)
    try:
        await process.start()
        yield process, replica
        await process.stop()
    finally:
        await replica.stop()


async def test_sigterm_lets_answers_finish_and_takes_no_more(alone):
    process, replica = alone
    go_on = asyncio.Event()

    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"", "Transfer-Encoding: chunked", length=False))
        exchange.send(chunked(b"begun", end=b""))
        await go_on.wait()
        exchange.send(chunked(b" and ended"))

    replica.respond = respond
    async with raw_client(process.url) as idle, raw_client(process.url) as client:
        idle.write(request("GET", "/health", None))
        assert (await idle.answer()).status == 200
        client.write(request())
        await client.until(b"begun\r\n")
        process.signal(signal.SIGTERM)
        await idle.closed()  # an idle connection goes at once
        with pytest.raises(ConnectionRefusedError):
            async with raw_client(process.url):
                pass
        go_on.set()
        assert await client.until(b"0\r\n\r\n") == b"a\r\n and ended\r\n0\r\n\r\n"
        await client.closed()


async def test_without_a_ready_replica_it_is_alive_and_says_so(tmp_path):
    config = {"replicas": [{"url": "http://127.0.0.1:9"}], "hold": {"outage_s": 0.1}}
    process = ServeProcess(config, tmp_path)
    await process.start(ready=False)
    assert (await process.get("/health")).status == 200
    ready = await process.get("/ready")
    assert (ready.status, ready.value("retry-after")) == (503, b"1")
    async with raw_client(process.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.status, answer.value("retry-after")) == (503, b"1")
        assert answer.json["error"]["code"]
    await process.stop()
