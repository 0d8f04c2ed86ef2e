"""A client that leaves takes its request along, whatever state it is in."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import OK, answering, chunked, http
from tests.fakes.serve_process import eventually

pytestmark = e2e("disconnects")

STREAM_BODY = b'{"model": "m", "stream": true}'
STREAM_HEAD = http(
    "200 OK", b"", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", length=False
)

SENT = {
    "waiting for the head": b"",
    "inside the head": b"HTTP/1.1 200 OK\r\nContent-",
    "after an interim answer": http("103 Early Hints", length=False),
    "inside a sized body": http("200 OK", b"", "Content-Length: 100", length=False) + b"x" * 50,
    "between two events": STREAM_HEAD + chunked(b"data: a\n\n", end=b""),
    "inside a chunk": STREAM_HEAD + b"40\r\ndata: a",
    "inside a body without a length": http("200 OK", b"", length=False) + b"x" * 50,
}
WAYS = {"closes": lambda client: client.close(), "resets": lambda client: client.reset()}


@pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
async def test_the_replica_sees_the_client_leave(router, replica, sent, leave):
    gone = asyncio.Event()

    async def respond(exchange):
        await exchange.read_body()
        exchange.send(sent)
        ready.set()
        await exchange.gone()
        gone.set()
        exchange.close()

    ready = asyncio.Event()
    replica.respond = respond
    failed = (await router.fleet())["replicas"][0]["failed_total"]
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/chat/completions", STREAM_BODY))
        await asyncio.wait_for(ready.wait(), DEADLINE_S)
        if sent.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\n\r\n" in sent:
            await client.head()
        leave(client)
        await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await router.drained()
    assert (await router.fleet())["replicas"][0]["failed_total"] == failed  # not its fault


@pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS)
async def test_leaving_while_the_answer_is_held_back(router, replica, leave):
    """The client stopped reading first, so that the replica is paused when it leaves."""

    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"y" * 40_000_000))
        ready.set()
        await exchange.gone()
        gone.set()
        exchange.close()

    ready, gone = asyncio.Event(), asyncio.Event()
    replica.respond = respond
    async with raw_client(router.url) as client:
        client.transport.pause_reading()
        client.write(request())
        await asyncio.wait_for(ready.wait(), DEADLINE_S)
        leave(client)
        await asyncio.wait_for(gone.wait(), DEADLINE_S)


@pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "part", [b"PO", request()[:40], request()[:-5], request("GET", "/v1/files/f", None)[:-2]]
)
async def test_leaving_before_the_request_is_complete_forwards_nothing(
    router, replica, part, leave
):
    async with raw_client(router.url) as client:
        client.write(part)
        leave(client)
    await router.drained()
    async with raw_client(router.url) as client:
        client.write(request())
        assert (await client.answer()).status == 200
    assert len(replica.requests) == 1


async def test_leaving_with_pipelined_requests_waiting(router, replica):
    gone = asyncio.Event()

    async def respond(exchange):
        await exchange.gone()
        gone.set()
        exchange.close()

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request() * 10)
        await replica.arrived()
        client.close()
        await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await router.drained()
    assert len(replica.requests) == 1


async def test_200_clients_leave_at_once(router, replica):
    left = 0

    async def respond(exchange):
        nonlocal left
        await exchange.read_body()
        exchange.send(STREAM_HEAD + chunked(b"data: a\n\n", end=b""))
        await exchange.gone()
        left += 1
        exchange.close()

    replica.respond = respond
    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(leave_after_one_event(router))
    await router.drained()

    async def all_left():
        return left == 200

    await asyncio.wait_for(eventually(all_left), DEADLINE_S)
    replica.respond = answering(OK)
    async with raw_client(router.url) as client:
        client.write(request())
        assert (await client.answer()).status == 200


async def leave_after_one_event(router):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/chat/completions", STREAM_BODY))
        await client.until(b"data: a\n\n")
