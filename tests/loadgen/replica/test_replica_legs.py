"""Two simulated replicas serve one request between them, asked as the router asks."""

from __future__ import annotations

import asyncio
import json

import pytest

from policies.base import Role
from router.split.base import Peer
from router.split.catalogue import DIALECTS
from tests.fakes.serve_process import eventually

DEADLINE_S = 5.0
WORDS = " ".join(f"word{number}" for number in range(60))
CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": WORDS}]})
TEXT = ("/v1/completions", {"prompt": WORDS})
ENGINES = {"sglang": "sglang"}


class Pair:
    """A prefill and a decode replica."""

    def __init__(self, dialect, prefill, decode):
        self.dialect = DIALECTS[dialect]
        self.prefill, self.decode = prefill, decode
        self.numbers = iter(range(1, 1000))

    def peer(self, client):
        address = client.url.removeprefix("http://")
        engine_id = client.replica.settings.engine_id
        return Peer("127.0.0.1", int(address.rpartition(":")[2]), address, engine_id)

    def legs(self, body):
        ends = self.peer(self.prefill), self.peer(self.decode)
        return self.dialect.legs(json.dumps(body).encode(), *ends, next(self.numbers))

    async def ask(self, path, body):
        """As the router does; the whole answer of the decode replica."""
        legs = self.legs(body)
        headers = {"X-Request-Id": legs.request_id.decode()} if legs.request_id else {}
        first = asyncio.create_task(self.prefill.post(path, legs.prefill_body, headers=headers))
        answer = b"" if legs.at_once else json.dumps((await first)[1]).encode()
        status, told = await self.decode.post(path, legs.decode_body(answer), headers=headers)
        assert (await first)[0] == 200
        return status, told

    async def kept(self, client=None):
        return json.loads((await (client or self.prefill).get("/kv"))[1])


async def until(look):
    async with asyncio.timeout(DEADLINE_S):
        await eventually(look)


@pytest.fixture
def pair(start):
    async def make(dialect, **more):
        both = {"engine": ENGINES.get(dialect, "vllm"), "kv_dialect": dialect, **more}
        prefill = await start(role=Role.PREFILL, **both)
        decode = await start(role=Role.DECODE, **both)
        return Pair(dialect, prefill, decode)

    return make


def text(told):
    choice = told["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("path", "body"), [CHAT, TEXT], ids=["chat", "completions"])
async def test_the_answer_is_that_of_one_replica_alone(pair, start, dialect, path, body):
    two = await pair(dialect)
    alone = await start(engine=ENGINES.get(dialect, "vllm"))
    asked = body | {"max_tokens": 20, "min_tokens": 5, "ignore_eos": True}
    status, told = await two.ask(path, asked)
    assert status == 200, told
    wanted = (await alone.post(path, asked))[1]
    assert text(told) == text(wanted)
    details = told["usage"].pop("prompt_tokens_details")
    assert details["cached_tokens"] == told["usage"]["prompt_tokens"] - 1
    del wanted["usage"]["prompt_tokens_details"]
    assert told["usage"] == wanted["usage"]
    prefilled = two.prefill.replica.engine.prefilled_tokens_total
    assert prefilled == told["usage"]["prompt_tokens"]
    assert two.decode.replica.engine.prefilled_tokens_total == 1  # the last token of the prompt
    kept = await two.kept()
    assert (kept["kept"], kept["pinned"], kept["expired_total"]) == ([], 0, 0)


@pytest.mark.parametrize("dialect", ["nixl", "mooncake", "p2p", "trtllm"])
async def test_what_nobody_fetches_is_let_go_of_when_its_lease_is_over(pair, dialect):
    two = await pair(dialect, kv_lease_s=0.05)
    legs = two.legs(TEXT[1])
    headers = {"X-Request-Id": legs.request_id.decode()} if legs.request_id else {}
    assert (await two.prefill.post(TEXT[0], legs.prefill_body, headers=headers))[0] == 200

    async def expired():
        return (await two.kept())["expired_total"] == 1

    await until(expired)
    assert (await two.kept())["pinned"] == 0


async def test_nixl_tells_nothing_of_a_prompt_shorter_than_a_block(pair):
    two = await pair("nixl")
    legs = two.legs({"prompt": "a b"})
    _, answer = await two.prefill.post(TEXT[0], legs.prefill_body)
    assert answer["kv_transfer_params"] is None
    assert (await two.kept())["pinned"] == 0


@pytest.mark.parametrize("dialect", ["nixl", "trtllm"])
async def test_kv_that_is_gone_fails_the_decode_leg(pair, dialect):
    two = await pair(dialect, kv_lease_s=0.01)
    legs = two.legs(TEXT[1])
    _, answer = await two.prefill.post(TEXT[0], legs.prefill_body)

    async def free():
        return not (await two.kept())["pinned"]

    await until(free)
    body = legs.decode_body(json.dumps(answer).encode())
    assert (await two.decode.post(TEXT[0], body))[0] == 500


async def test_a_sglang_server_with_a_role_serves_nothing_alone(pair):
    two = await pair("sglang")
    for client in (two.prefill, two.decode):
        status, told = await client.post(TEXT[0], TEXT[1])
        assert status == 400
        assert "bootstrap room" in json.dumps(told)


async def test_a_p2p_replica_wants_addresses_in_the_id(pair):
    two = await pair("p2p")
    assert (await two.decode.post(TEXT[0], TEXT[1]))[0] == 500


@pytest.mark.parametrize("dialect", ["nixl", "mooncake", "trtllm"])
async def test_others_serve_whole_requests_as_well(pair, dialect):
    two = await pair(dialect)
    for client in (two.prefill, two.decode):
        assert (await client.post(TEXT[0], TEXT[1]))[0] == 200


async def test_a_prefill_leg_of_sglang_that_is_dropped_fails_its_decode_leg(pair):
    two = await pair("sglang", speed=0.01)
    legs = two.legs(TEXT[1] | {"max_tokens": 5})
    first = asyncio.create_task(two.prefill.post(TEXT[0], legs.prefill_body))
    second = asyncio.create_task(two.decode.post(TEXT[0], legs.decode_body(b"")))

    async def both_there():
        running = two.prefill.replica.engine.running
        return bool(running and two.decode.replica.engine.fetching)

    await until(both_there)
    first.cancel()
    assert (await second)[0] == 500
    assert (await two.kept())["pinned"] == 0


async def test_a_decode_leg_of_nixl_that_is_dropped_lets_go_of_the_kv(pair):
    two = await pair("nixl", link_gbps=0.0001)
    legs = two.legs(TEXT[1])
    _, answer = await two.prefill.post(TEXT[0], legs.prefill_body)
    body = legs.decode_body(json.dumps(answer).encode())
    second = asyncio.create_task(two.decode.post(TEXT[0], body))

    async def held():
        return [kept["held"] for kept in (await two.kept())["kept"]] == [True]

    await until(held)
    second.cancel()

    async def free():
        return not (await two.kept())["pinned"]

    await until(free)


async def test_a_transfer_takes_the_time_that_the_link_needs(pair):
    two = await pair("nixl", link_gbps=1.0, speed=1000.0)
    status, _ = await two.ask(*TEXT)
    assert status == 200
    engine = two.decode.replica.engine
    profile = two.decode.replica.settings.profile
    assert engine.now_s >= len(WORDS.split()) * profile.kv_bytes_per_token * 8 / 1e9


async def test_a_decode_replica_that_hangs_up_does_not_break_the_prefill_leg(pair):
    two = await pair("sglang", kv_lease_s=60.0)
    legs = two.legs(TEXT[1] | {"max_tokens": 5})
    first = asyncio.create_task(two.prefill.post(TEXT[0], legs.prefill_body))
    url = f"{two.prefill.url}/kv/{next(two.numbers) - 1}"

    async with two.prefill.session.get(url) as held:
        assert held.status == 200
        held.close()  # as whoever is killed

    async def left():
        return [kept["held"] for kept in (await two.kept())["kept"]] == [False]

    await until(left)
    assert not first.done()
    assert (await two.decode.post(TEXT[0], legs.decode_body(b"")))[0] == 200
    assert (await first)[0] == 200
