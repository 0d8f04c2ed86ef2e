"""Client connections: pipelining, HTTP/1.0, keep-alive, expectations, refusals."""

from __future__ import annotations

import json

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import answering, chunked, http

pytestmark = e2e("connections")

KEEP_ALIVE = "Connection: Keep-Alive"


async def test_pipelined_requests_are_answered_in_order(router, replica):
    async def respond(exchange):
        number = json.loads(await exchange.read_body())["number"]
        exchange.send(http("200 OK", b"%d" % number))

    replica.respond = respond
    bodies = [b'{"model": "m", "number": %d}' % number for number in range(50)]
    async with raw_client(router.url) as client:
        client.write(b"".join(request("POST", "/v1/completions", body) for body in bodies))
        got = [int((await client.answer()).body) for _ in bodies]
    assert got == list(range(50))


async def test_pipelined_errors_of_our_own_keep_their_place(router, replica):
    async with raw_client(router.url) as client:
        client.write(
            request() + request("GET", "/sleep", None) + request("GET", "/health", None) + request()
        )
        assert [(await client.answer()).status for _ in range(4)] == [200, 404, 200, 200]
    assert len(replica.requests) == 2


async def test_2000_pipelined_requests_in_one_write(router, replica):
    async with raw_client(router.url) as client:
        client.write(request("GET", "/v1/files/f", None) * 2000)
        for _ in range(2000):
            assert (await client.answer()).status == 200
    assert len(replica.requests) == 2000


async def test_http_1_0_closes_after_its_answer(router, replica):
    async with raw_client(router.url) as client:
        client.write(request("GET", "/v1/files/f", None, version="HTTP/1.0", host=None))
        answer = await client.answer()
        assert answer.body == b'{"ok": true}'
        assert answer.value("connection") in {b"close", None}
        await client.closed()
    assert replica.requests[0].line.endswith(b"HTTP/1.1")
    assert replica.requests[0].value(b"host") is not None


async def test_http_1_0_keep_alive(router, replica):
    async with raw_client(router.url) as client:
        for _ in range(3):
            client.write(request("GET", "/v1/files/f", None, KEEP_ALIVE, version="HTTP/1.0"))
            answer = await client.answer()
            assert answer.body == b'{"ok": true}'
            assert answer.value("connection").lower() == b"keep-alive"
    assert len(replica.requests) == 3


async def test_http_1_0_gets_no_chunks(router, replica):
    replica.respond = answering(
        http("200 OK", b"", "Transfer-Encoding: chunked", length=False) + chunked(b"one", b"two")
    )
    async with raw_client(router.url) as client:
        client.write(request("GET", "/v1/files/f", None, KEEP_ALIVE, version="HTTP/1.0"))
        answer = await client.answer()
        assert answer.values("transfer-encoding") == []
        assert (answer.body, answer.complete) == (b"onetwo", True)


async def test_connection_close_is_honoured(router, replica):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", b"{}", "Connection: close"))
        answer = await client.answer()
        assert answer.value("connection") == b"close"
        await client.closed()


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
async def test_expect_100_continue(router, replica, sized):
    body = b'{"model": "m"}'
    framing = f"Content-Length: {len(body)}" if sized else "Transfer-Encoding: chunked"
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", None, framing, "Expect: 100-continue"))
        assert (await client.head())[0] == 100
        client.write(body if sized else chunked(body))
        assert (await client.answer()).status == 200
    assert replica.requests[0].content == body
    assert replica.requests[0].values(b"expect") == []


async def test_expect_100_continue_of_what_is_refused_gets_the_refusal_at_once(router, replica):
    async with raw_client(router.url) as client:
        client.write(
            request("POST", "/sleep", None, "Content-Length: 1000000", "Expect: 100-continue")
        )
        answer = await client.answer()
        assert (answer.status, answer.value("connection")) == (404, b"close")
        await client.closed()
    assert replica.requests == []


async def test_a_refused_upload_is_drained_so_that_its_answer_arrives(router, replica):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/sleep", b"x" * 3_000_000))
        answer = await client.answer()
        assert (answer.status, answer.complete) == (404, True)
        assert answer.value("connection") == b"close"
    assert replica.requests == []


async def test_empty_lines_before_a_request_are_forgiven(router, replica):
    async with raw_client(router.url) as client:
        client.write(request() + b"\r\n" + request())
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
