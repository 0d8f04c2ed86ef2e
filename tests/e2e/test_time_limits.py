"""What may take how long: heads and bodies of requests are bounded, answers are not.

All limits are a fraction of a second here; what must outlive them is silent for longer than all of
them together with the quarter of a second between two looks at the clock.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import chunked, http

pytestmark = e2e("time-limits")

LIMIT_S = 0.3
SILENCE_S = 1.2
CONFIG = {
    "limits": {
        "head_timeout_s": LIMIT_S,
        "body_timeout_s": LIMIT_S,
        "keep_alive_s": LIMIT_S,
        "connect_timeout_s": LIMIT_S,
        "upstream_idle_s": LIMIT_S,
        "write_timeout_s": LIMIT_S,
    },
    "polling": {"timeout_s": 5.0},
}
EVENT_STREAM = "Content-Type: text/event-stream"
TRICKLE_S = 0.05


async def trickle(client, data):
    """Send a byte now and then until the other side has had enough."""
    for byte in data:
        if client.buffer or client.over:
            return
        client.write(bytes([byte]))
        await asyncio.sleep(TRICKLE_S)
    raise AssertionError("all was taken")


@pytest.mark.parametrize("rest", [b"", b" / HTTP/1.1\r\nHost: a\r\n" + b"X-A: 1\r\n" * 100])
async def test_a_head_that_does_not_come_to_its_end_gets_408(router, replica, rest):
    async with raw_client(router.url) as client:
        client.write(b"POST")
        if rest:
            await trickle(client, rest)
        answer = await client.answer()
        assert (answer.status, answer.value("connection")) == (408, b"close")
        assert answer.json["error"]["type"]
        await client.closed()
    assert replica.requests == []


async def test_the_head_of_a_second_request_is_timed_too(router, replica):
    async with raw_client(router.url) as client:
        client.write(request() + b"POST /v1/comp")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 408
        await client.closed()


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_body_that_stops_gets_408(router, replica, framing):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", None, framing))
        client.write(b"5\r\nabcde\r\n")
        answer = await client.answer()
        assert (answer.status, answer.value("connection")) == (408, b"close")
        await client.closed()
    assert replica.requests == []


async def test_a_slow_body_that_goes_on_is_waited_for(router, replica):
    body = b'{"model": "m", "prompt": "' + b"x" * 20 + b'"}'
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", None, f"Content-Length: {len(body)}"))
        for at in range(0, len(body), 4):
            client.write(body[at : at + 4])
            await asyncio.sleep(TRICKLE_S)
        assert (await client.answer()).status == 200
    assert replica.requests[0].content == body


@pytest.mark.parametrize("after_one", [False, True])
async def test_an_idle_connection_is_closed_in_silence(router, replica, after_one):
    async with raw_client(router.url) as client:
        if after_one:
            client.write(request())
            assert (await client.answer()).status == 200
        await client.closed()


async def test_an_idle_connection_to_the_replica_is_closed(router, replica):
    async with raw_client(router.url) as client:
        client.write(request())
        assert (await client.answer()).status == 200
    await asyncio.wait_for(replica.connections[0].gone(), DEADLINE_S)


async def test_an_answer_may_be_silent_for_as_long_as_it_likes(router, replica):
    async def respond(exchange):
        await exchange.read_body()
        await asyncio.sleep(SILENCE_S)
        exchange.send(http("200 OK", b"at last"))

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request())
        assert (await client.answer()).body == b"at last"


async def test_a_stream_may_be_silent_between_its_events(router, replica):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"", EVENT_STREAM, "Transfer-Encoding: chunked", length=False))
        exchange.send(chunked(b"data: a\n\n", end=b""))
        await asyncio.sleep(SILENCE_S)
        exchange.send(chunked(b"data: [DONE]\n\n"))

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.body, answer.complete) == (b"data: a\n\ndata: [DONE]\n\n", True)


async def test_a_client_that_reads_nothing_is_dropped_and_its_replica_let_go(router, replica):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"z" * 30_000_000))
        await exchange.gone()
        gone.set()
        exchange.close()

    gone = asyncio.Event()
    replica.respond = respond
    async with raw_client(router.url) as client:
        client.transport.pause_reading()
        client.write(request())
        await asyncio.wait_for(gone.wait(), DEADLINE_S)
        await router.drained()


async def test_a_refused_client_that_goes_on_sending_is_not_read_for_ever(router, replica):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/sleep", None, "Content-Length: 1000000000"))
        assert (await client.answer()).status == 404
        await asyncio.wait_for(sending_until_lost(client), DEADLINE_S)
    assert replica.requests == []


async def sending_until_lost(client):
    while not client.lost.is_set():
        client.write(b"x" * 1000)
        await asyncio.sleep(TRICKLE_S)
