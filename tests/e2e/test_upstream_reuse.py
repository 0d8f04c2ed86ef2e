"""Connections to replicas that are used again, and the race with a replica that closes them."""

from __future__ import annotations

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import http

pytestmark = e2e("reuse")


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_a_replica_that_drops_its_idle_connection_as_a_request_comes(router, replica, how):
    async def respond(exchange):
        if exchange.number:  # a connection that was used before
            exchange.close() if how == "closes" else exchange.reset()
            return
        await exchange.read_body()
        exchange.send(http("200 OK", b"fine"))

    replica.respond = respond
    failed = (await router.fleet())["replicas"][0]["failed_total"]
    async with raw_client(router.url) as client:
        for _ in range(5):
            client.write(request())
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"fine")
    assert len(replica.requests) == 9  # each but the first was tried on a used connection too
    bodies = {recorded.content for recorded in replica.requests} - {b""}
    assert len(bodies) == 1
    assert (await router.fleet())["replicas"][0]["failed_total"] == failed


async def test_a_connection_that_the_replica_announces_to_close_is_not_used_again(router, replica):
    async def respond(exchange):
        assert exchange.number == 0
        await exchange.read_body()
        exchange.send(http("200 OK", b"x", "Connection: close"))

    replica.respond = respond
    async with raw_client(router.url) as client:
        for _ in range(3):
            client.write(request())
            assert (await client.answer()).status == 200
    assert len(replica.connections) == 3


async def test_connections_to_the_replica_are_used_again(router, replica):
    async with raw_client(router.url) as client:
        for _ in range(10):
            client.write(request())
            assert (await client.answer()).status == 200
    assert len(replica.connections) == 1
