"""A stream whose first token is late is asked of a second replica; the client sees one answer."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import chunked, http

pytestmark = e2e("hedging")

REPLICAS = [["m"], ["m"]]
CONFIG = {"retry": {"hedge_after_s": 0.2}}
BODY = b'{"model": "m", "prompt": "a", "stream": true}'
FIELDS = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
HEAD = http("200 OK", b"", *FIELDS, length=False)


def events(name):
    return chunked(*(b"data: %s %d\n\n" % (name, number) for number in range(20)))


def said(name):
    return b"".join(b"data: %s %d\n\n" % (name, number) for number in range(20))


class Answers:
    """What each replica does with the requests of one test: first to come, first served."""

    def __init__(self, replicas, *scripts):
        self.came = [asyncio.Event() for _ in scripts]
        self.go = [asyncio.Event() for _ in scripts]
        self.gone = [asyncio.Event() for _ in scripts]
        self.number = 0
        self.scripts = scripts
        for replica in replicas:
            replica.respond = self.respond

    async def respond(self, exchange):
        await exchange.read_body()
        number, self.number = self.number, self.number + 1
        self.came[number].set()
        waiting = asyncio.ensure_future(exchange.gone())
        try:
            await self.scripts[number](exchange, self.go[number])
            if self.go[number].is_set():
                return
            await waiting
            self.gone[number].set()
        finally:
            waiting.cancel()


async def silent(exchange, go):
    """Say nothing at all."""


async def first_late(exchange, go):
    exchange.send(HEAD)
    await go.wait()
    exchange.send(events(b"first"))


async def first_resets(exchange, go):
    await go.wait()
    exchange.reset()


async def first_refuses(exchange, go):
    await go.wait()
    exchange.send(http("503 Service Unavailable", b"{}"))


async def second(exchange, go):
    go.set()
    exchange.send(HEAD + events(b"second"))


async def late_second(exchange, go):
    await go.wait()
    exchange.send(HEAD + events(b"second"))


async def never(exchange, go):
    exchange.send(HEAD)


async def ask(router):
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", BODY))
        return await client.answer()


async def count(router, name):
    lines = (await router.metrics()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("first", [never, silent])
async def test_the_second_answers_first(router, replicas, first):
    won = await count(router, 'pointsman_hedges_total{outcome="won"}')
    answers = Answers(replicas, first, second)
    answer = await asyncio.wait_for(ask(router), DEADLINE_S)
    assert (answer.status, answer.body, answer.complete) == (200, said(b"second"), True)
    await asyncio.wait_for(answers.gone[0].wait(), DEADLINE_S)
    assert sorted(len(replica.requests) for replica in replicas) == [1, 1]
    assert await count(router, 'pointsman_hedges_total{outcome="won"}') == won + 1


async def test_the_first_answers_first_after_all(router, replicas):
    answers = Answers(replicas, first_late, never)
    asking = asyncio.ensure_future(ask(router))
    await asyncio.wait_for(answers.came[1].wait(), DEADLINE_S)
    answers.go[0].set()
    answer = await asyncio.wait_for(asking, DEADLINE_S)
    assert (answer.status, answer.body, answer.complete) == (200, said(b"first"), True)
    await asyncio.wait_for(answers.gone[1].wait(), DEADLINE_S)


@pytest.mark.parametrize("first", [first_resets, first_refuses])
async def test_the_first_fails_and_the_second_goes_on(router, replicas, first):
    answers = Answers(replicas, first, late_second)
    asking = asyncio.ensure_future(ask(router))
    await asyncio.wait_for(answers.came[1].wait(), DEADLINE_S)
    answers.go[0].set()
    answers.go[1].set()
    answer = await asyncio.wait_for(asking, DEADLINE_S)
    assert (answer.status, answer.body, answer.complete) == (200, said(b"second"), True)
    assert sum(len(replica.requests) for replica in replicas) == 2


async def test_a_client_that_leaves_ends_both(router, replicas):
    answers = Answers(replicas, never, never)
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", BODY))
        await asyncio.wait_for(answers.came[1].wait(), DEADLINE_S)
    for gone in answers.gone:
        await asyncio.wait_for(gone.wait(), DEADLINE_S)


async def test_a_head_without_a_body_is_an_answer_too(router, replicas):
    async def empty(exchange, go):
        go.set()
        exchange.send(http("204 No Content", length=False))

    Answers(replicas, empty)
    answer = await asyncio.wait_for(ask(router), DEADLINE_S)
    assert (answer.status, answer.body, answer.complete) == (204, b"", True)


async def test_errors_are_retried_and_relayed_as_without_hedging(router, replicas):
    async def refuses(exchange, go):
        go.set()
        exchange.send(http("503 Service Unavailable", b"{}"))

    async def bad(exchange, go):
        go.set()
        exchange.send(http("400 Bad Request", b'{"error": "yours"}'))

    Answers(replicas, refuses, bad)
    answer = await asyncio.wait_for(ask(router), DEADLINE_S)
    assert (answer.status, answer.body) == (400, b'{"error": "yours"}')
