"""What breaks before any byte of an answer is tried elsewhere, once per replica."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import OK, answering, http

pytestmark = e2e("failover")

REPLICAS = [["m"], ["m"], ["m"]]
BODY = b'{"model": "m", "prompt": "' + b"p" * 300_000 + b'"}'


def failing(kind):
    async def respond(exchange):
        if kind != "closes before the body":
            await exchange.read_body()
        if kind == "garbage":
            exchange.send(b"\x00\x00\r\n\r\n")
        elif kind == "half a head":
            exchange.send(b"HTTP/1.1 200 OK\r\nConte")
        elif kind == "interim only":
            exchange.send(http("103 Early Hints", length=False))
        if kind == "resets":
            exchange.reset()
        else:
            exchange.close()

    return respond


async def test_load_goes_round(router, replicas):
    async with raw_client(router.url) as client:
        for _ in range(9):
            client.write(request())
            assert (await client.answer()).status == 200
    assert [len(replica.requests) for replica in replicas] == [3, 3, 3]


KINDS = [
    "closes", "resets", "closes before the body", "garbage", "half a head", "interim only",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broken", [1, 2])
async def test_a_request_goes_on_to_the_next_replica(router, replicas, kind, broken):
    for replica in replicas[:broken]:
        replica.respond = failing(kind)
    async with raw_client(router.url) as client:
        for _ in range(6):
            client.write(request("POST", "/v1/completions", BODY))
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b'{"ok": true}')
    assert len(replicas[2].requests) >= 2
    if broken == 2:
        assert len(replicas[2].requests) == 6
    for recorded in replicas[2].requests:
        assert recorded.content == BODY


async def test_each_replica_is_tried_once_and_then_it_is_a_502(router, replicas):
    for replica in replicas:
        replica.respond = failing("closes")
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_failed")
        for replica in replicas:
            replica.respond = answering(OK)
        client.write(request())
        assert (await client.answer()).status == 200
    assert [len(replica.requests) for replica in replicas] >= [1, 1, 1]


async def test_what_was_begun_is_not_tried_again(router, replicas):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"", "Content-Length: 10", length=False) + b"begun")
        exchange.close()

    for replica in replicas:
        replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.body, answer.complete) == (b"begun", False)
    assert sum(len(replica.requests) for replica in replicas) == 1


async def test_an_error_that_a_second_replica_answers_too_is_the_answer(router, replicas):
    for replica in replicas:
        replica.respond = answering(http("500 Internal Server Error", b"boom"))
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.status, answer.body) == (500, b"boom")
    assert sum(len(replica.requests) for replica in replicas) == 2


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_replica_that_is_busy_is_passed_over(router, replicas, status):
    for replica in replicas[:1]:  # retries for a status have a budget: a fifth of what arrives
        replica.respond = answering(http(status, b"busy", "Retry-After: 0"))
    async with raw_client(router.url) as client:
        for _ in range(3):
            client.write(request("POST", "/v1/completions", BODY))
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b'{"ok": true}')
    for recorded in replicas[1].requests:
        assert recorded.content == BODY


async def test_an_error_of_the_clients_own_making_is_tried_nowhere_else(router, replicas):
    for replica in replicas:
        replica.respond = answering(http("400 Bad Request", b"too long"))
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.status, answer.body) == (400, b"too long")
    assert sum(len(replica.requests) for replica in replicas) == 1


async def test_200_requests_while_replicas_fail_at_random(router, replicas):
    async def respond(exchange):
        await exchange.read_body()
        if exchange.number % 3 == 2:
            exchange.reset()
        else:
            exchange.send(OK)

    async def one():
        async with raw_client(router.url) as client:
            client.write(request())
            return (await client.answer()).status

    for replica in replicas[:2]:
        replica.respond = respond
    assert await asyncio.gather(*(one() for _ in range(200))) == [200] * 200
