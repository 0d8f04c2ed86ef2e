"""One replica computes a prompt, another answers it; the client sees one answer."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import answering, chunked, http

pytestmark = e2e("split")

REPLICAS = [["m"], ["m"], ["m"], ["m"]]
ROLES = ["prefill", "prefill", "decode", "decode"]
CONFIG = {
    "split": {"kv_dialect": "nixl"},
    "policy": {"name": "prefill_decode", "options": {"split": "always"}},
    # The same four replicas fail again and again here.
    "health": {"failures_in_a_row": 1000, "failure_window_requests": 1000},
    "retry": {"minimum": 1000},
}
JSON = "Content-Type: application/json"
FIELDS = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
PARAMS = {"do_remote_prefill": True, "remote_block_ids": [[1, 2]], "remote_host": "p"}
TOLD = json.dumps({"choices": [], "kv_transfer_params": PARAMS}).encode()
PREFILLED = http("200 OK", TOLD, JSON)
ASKED = {"model": "m", "prompt": "a b c", "max_tokens": 9, "stream": True, "x-new": 1.50}


def event(text, finish=None):
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "cmpl-1", "choices": [choice]}).encode()


EVENTS = [event("one"), event(" two"), event(" three", "stop"), b"data: [DONE]\n\n"]
STREAM = http("200 OK", b"", *FIELDS, length=False) + chunked(*EVENTS)
WHOLE = http("200 OK", b'{"ok": 1}', JSON)


@pytest.fixture
def sides(replicas):
    """Prefill replicas and decode replicas that do what they should."""
    prefills, decodes = replicas[:2], replicas[2:]
    for replica in prefills:
        replica.respond = answering(PREFILLED)
    for replica in decodes:
        replica.respond = answering(STREAM)
    return prefills, decodes


async def ask(router, asked=ASKED, path="/v1/completions", *fields):
    async with raw_client(router.url) as client:
        client.write(request("POST", path, json.dumps(asked).encode(), *fields))
        return await asyncio.wait_for(client.answer(), DEADLINE_S)


def texts(answer):
    events = [line[6:] for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def seen(replicas):
    return [recorded for replica in replicas for recorded in replica.requests]


async def count(router, outcome):
    lines = (await router.metrics()).splitlines()
    name = f'pointsman_splits_total{{outcome="{outcome}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def test_each_side_gets_its_part_and_the_client_one_answer(router, sides):
    prefills, decodes = sides
    begun = await count(router, "begun")
    answer = await ask(router, ASKED, "/v1/completions?a=%20b", "X-Request-Id: mine")
    assert (answer.status, answer.body, answer.complete) == (200, b"".join(EVENTS), True)
    (first,), (second,) = seen(prefills), seen(decodes)
    assert first.target == second.target == b"/v1/completions?a=%20b"
    assert first.value(b"x-request-id") == second.value(b"x-request-id") == b"mine"
    one = json.loads(first.content)
    assert (one["max_tokens"], one["prompt"], one["x-new"]) == (1, "a b c", 1.5)
    assert one["kv_transfer_params"]["do_remote_decode"] is True
    assert "stream" not in one
    other = json.loads(second.content)
    assert other == ASKED | {"kv_transfer_params": PARAMS}
    assert await count(router, "begun") == begun + 1


async def test_answers_in_one_piece_are_split_as_well(router, sides):
    _, decodes = sides
    for replica in decodes:
        replica.respond = answering(WHOLE)
    answer = await ask(router, {"model": "m", "prompt": "a"})
    assert (answer.status, answer.body) == (200, b'{"ok": 1}')
    (second,) = seen(decodes)
    assert json.loads(second.content) == {
        "model": "m",
        "prompt": "a",
        "kv_transfer_params": PARAMS,
    }


USED = b'"usage":{"prompt_tokens":700,"prompt_tokens_details":{"cached_tokens":%b},"x":1}'


@pytest.mark.parametrize(
    "counts",
    [
        (b"64", b"699", b"64 "),
        (b"640", b"699", b"640"),
        (b"0", b"699", b"0  "),
        (b"1234", b"699", b"699"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_cached_tokens_are_those_of_who_computed(router, sides, streamed, counts):
    prefills, decodes = sides
    there, here, told = counts
    answer = TOLD[:-1] + b"," + USED % there + b"}"
    for replica in prefills:
        replica.respond = answering(http("200 OK", answer, JSON))
    last = b'data: {"choices":[],' + USED % here + b"}\n\n"
    whole = b'{"choices":[{"text":"a \\"cached_tokens\\": 5"}],' + USED % here + b"}"
    head = http("200 OK", b"", *FIELDS, length=False)
    sent = head + chunked(*EVENTS[:3], last, EVENTS[3]) if streamed else http("200 OK", whole, JSON)
    for replica in decodes:
        replica.respond = answering(sent)
    got = await ask(router, ASKED | {"stream": streamed, "stream_options": {"include_usage": True}})
    assert got.complete
    assert USED % told in got.body
    if not streamed:
        assert got.body == whole.replace(USED % here, USED % told)


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", b"{}", JSON),
        http("200 OK", b'{"kv_transfer_params": null}', JSON),
        http("200 OK", b"garbage", JSON),
        http("204 No Content", length=False),
        http("200 OK", gzip.compress(TOLD), JSON, "Content-Encoding: gzip"),
        http("200 OK", b'{"a":"' + b"x" * (16 << 20) + b'"}', JSON),
    ],
    ids=["nothing", "null", "garbage", "empty", "coded", "endless"],
)
async def test_without_what_kv_is_fetched_by_one_serves_it_whole(router, sides, answer):
    prefills, decodes = sides
    unusable = await count(router, "unusable")
    for replica in prefills:
        replica.respond = answering(answer)
    got = await ask(router)
    assert (got.status, got.body) == (200, b"".join(EVENTS))
    (second,) = seen(decodes)
    assert "kv_transfer_params" not in json.loads(second.content)
    assert len(seen(prefills)) == 1
    assert await count(router, "unusable") == unusable + 1


async def test_a_prefill_answer_may_come_in_chunks(router, sides):
    prefills, decodes = sides
    pieces = [TOLD[at : at + 7] for at in range(0, len(TOLD), 7)]
    head = http("200 OK", b"", JSON, "Transfer-Encoding: chunked", length=False)
    for replica in prefills:
        replica.respond = answering(head + chunked(*pieces))
    assert (await ask(router)).body == b"".join(EVENTS)
    (second,) = seen(decodes)
    assert json.loads(second.content)["kv_transfer_params"] == PARAMS


async def test_an_error_of_the_clients_own_making_is_the_prefill_replicas(router, sides):
    prefills, decodes = sides
    for replica in prefills:
        replica.respond = answering(http("400 Bad Request", b'{"error": "yours"}', JSON))
    answer = await ask(router)
    assert (answer.status, answer.body) == (400, b'{"error": "yours"}')
    assert (len(seen(prefills)), len(seen(decodes))) == (1, 0)


async def test_an_error_of_the_clients_own_making_may_come_from_the_other_side(router, sides):
    _, decodes = sides
    for replica in decodes:
        replica.respond = answering(http("422 Unprocessable Entity", b'{"error": 1}', JSON))
    answer = await ask(router)
    assert (answer.status, answer.body) == (422, b'{"error": 1}')


class Once:
    """The first of its replicas that is asked does something else."""

    def __init__(self, replicas, otherwise, usual):
        self.otherwise, self.usual = otherwise, usual
        self.asked = 0
        for replica in replicas:
            replica.respond = self.respond

    async def respond(self, exchange):
        self.asked += 1
        await (self.otherwise if self.asked == 1 else self.usual)(exchange)


async def resets(exchange):
    await exchange.read_body()
    exchange.reset()


async def resets_in_its_answer(exchange):
    await exchange.read_body()
    exchange.send(PREFILLED[:-20])
    exchange.close()


@pytest.mark.parametrize(
    "otherwise",
    [resets, resets_in_its_answer, answering(http("503 Service Unavailable", b"{}", JSON))],
)
async def test_a_prefill_that_fails_is_asked_of_another(router, sides, otherwise):
    prefills, decodes = sides
    once = Once(prefills, otherwise, answering(PREFILLED))
    answer = await ask(router)
    assert (answer.status, answer.body) == (200, b"".join(EVENTS))
    assert once.asked == 2
    assert [len(replica.requests) for replica in prefills] == [1, 1]
    assert len(seen(decodes)) == 1


async def refuses_at_once(exchange):
    exchange.send(http("500 Internal Server Error", b"{}", JSON))


async def dies_before_its_first_token(exchange):
    await exchange.read_body()
    exchange.send(http("200 OK", b"", *FIELDS, length=False))
    exchange.reset()


@pytest.mark.parametrize("otherwise", [resets, refuses_at_once, dies_before_its_first_token])
async def test_a_decode_that_fails_has_its_prompt_computed_again(router, sides, otherwise):
    prefills, decodes = sides
    once = Once(decodes, otherwise, answering(STREAM))
    answer = await ask(router)
    assert (answer.status, answer.complete) == (200, True)
    assert texts(answer) == "one two three"
    assert once.asked == 2
    assert [len(replica.requests) for replica in decodes] == [1, 1]
    assert len(seen(prefills)) == 2


async def test_a_stream_that_breaks_goes_on_as_a_pair(router, sides):
    prefills, decodes = sides

    async def breaks(exchange):
        await exchange.read_body()
        head = http("200 OK", b"", *FIELDS, length=False)
        exchange.send(head + chunked(EVENTS[0], end=b""))
        exchange.reset()

    rest = http("200 OK", b"", *FIELDS, length=False) + chunked(*EVENTS[1:])
    once = Once(decodes, breaks, answering(rest))
    answer = await ask(router)
    assert texts(answer) == "one two three"
    assert answer.complete
    assert once.asked == 2
    again = json.loads(seen(decodes)[-1].content)
    assert again["kv_transfer_params"] == PARAMS
    assert again["prompt"] == "a b cone"
    assert len(seen(prefills)) == 2


class Silent:
    """Answers nothing and waits until the router has left."""

    def __init__(self, replicas):
        self.came, self.gone = asyncio.Event(), asyncio.Event()
        for replica in replicas:
            replica.respond = self.respond

    async def respond(self, exchange):
        await exchange.read_body()
        self.came.set()
        await exchange.gone()
        self.gone.set()


@pytest.mark.parametrize("side", [0, 1])
async def test_a_client_that_leaves_is_left_by_both_sides(router, sides, side):
    silent = Silent(sides[side])
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", json.dumps(ASKED).encode()))
        await asyncio.wait_for(silent.came.wait(), DEADLINE_S)
    await asyncio.wait_for(silent.gone.wait(), DEADLINE_S)
    if side == 0:
        assert seen(sides[1]) == []


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/embeddings", {"model": "m", "input": "a"}),
        ("/v1/completions", ASKED | {"n": 2}),
        ("/v1/messages", {"model": "m", "max_tokens": 1, "messages": []}),
    ],
)
async def test_what_cannot_be_split_goes_whole_to_one_that_answers(router, sides, path, asked):
    prefills, decodes = sides
    for replica in decodes:
        replica.respond = answering(WHOLE)
    assert (await ask(router, asked, path)).body == b'{"ok": 1}'
    assert (len(seen(prefills)), len(seen(decodes))) == (0, 1)
    assert json.loads(seen(decodes)[0].content) == asked


@pytest.mark.parametrize(
    "more", [{"echo": True}, {"kv_transfer_params": {"do_remote_decode": True}}]
)
async def test_what_turns_out_not_to_be_splittable_goes_as_it_came(router, sides, more):
    prefills, decodes = sides
    for replica in decodes:
        replica.respond = answering(WHOLE)
    asked = {"model": "m", "prompt": "a"} | more
    assert (await ask(router, asked)).body == b'{"ok": 1}'
    assert seen(prefills) == []
    (second,) = seen(decodes)
    assert second.content == json.dumps(asked).encode()


async def test_a_connection_that_was_closed_while_idle_is_no_failure(router, sides):
    prefills, _ = sides

    async def closes_afterwards(exchange):
        await exchange.read_body()
        exchange.send(PREFILLED)

    for replica in prefills:
        replica.respond = closes_afterwards
    before = [view["failed_total"] for view in (await router.fleet())["replicas"]]
    assert (await ask(router)).complete
    for replica in prefills:
        for connection in replica.connections:
            connection.close()
    assert (await ask(router)).body == b"".join(EVENTS)
    page = await router.fleet()
    assert [view["failed_total"] for view in page["replicas"]] == before


async def test_the_fleet_page_tells_the_roles(router):
    page = await router.fleet()
    assert [view["role"] for view in page["replicas"]] == ROLES
