"""A replica whose health page is fine has to make a token as well, where that is asked of it."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from polling_rig import FakeReplica, Hang, rigged, started

from router.config.loading import parse_config
from router.config.structs import ConfigError
from router.polling.generation import GENERATION_PATH

TOKEN = (200, b'{"choices":[{"index":0,"text":" a","finish_reason":"length"}]}')


@pytest.fixture
async def asking():
    async with rigged(timeout_s=5.0, generation_s=30.0, generation_timeout_s=0.1) as made:
        yield made


def asked(fake):
    return fake.asked.count(GENERATION_PATH)


async def test_nobody_is_asked_for_tokens_unless_the_configuration_says_so(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    assert replica.ready
    assert asked(fake) == 0


async def test_a_replica_makes_a_token_before_its_first_request(asking, fake):
    requests = []

    async def answer(request):
        requests.append(await request.json())
        return web.Response(status=500)

    fake.answers[GENERATION_PATH] = answer
    replica = asking.watch(fake)
    await asking.health()
    assert not replica.ready
    assert replica.health_reason == f"it was asked for a token: {GENERATION_PATH} answers 500"
    fake.answers[GENERATION_PATH] = TOKEN
    await asking.health()
    assert replica.ready
    assert requests == [{"prompt": "1", "max_tokens": 1, "temperature": 0, "model": "tiny"}]


async def test_a_dead_engine_behind_a_healthy_face_is_found_out_while_idle(asking, fake):
    fake.answers[GENERATION_PATH] = TOKEN
    replica = asking.watch(fake)
    await asking.health()
    fake.answers[GENERATION_PATH] = Hang()
    asking.pacer.now += 29.0
    await asking.health()
    assert replica.ready
    asking.pacer.now += 1.0
    await asking.health()
    assert not replica.ready
    assert replica.health_reason == "it was asked for a token: no answer within 0.1 s"
    fake.answers[GENERATION_PATH].let_go.set()
    fake.answers[GENERATION_PATH] = TOKEN
    await asking.health()
    assert replica.ready


async def test_a_replica_that_has_requests_is_not_asked(asking, fake):
    fake.answers[GENERATION_PATH] = TOKEN
    replica = asking.watch(fake)
    await asking.health()
    replica.in_flight = 1
    for _ in range(3):
        asking.pacer.now += 30.0
        await asking.health()
    assert asked(fake) == 1
    replica.in_flight = 0
    asking.pacer.now += 29.0
    await asking.health()
    assert asked(fake) == 1
    asking.pacer.now += 1.0
    await asking.health()
    assert asked(fake) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
async def test_who_cannot_be_asked_or_is_busy_is_not_judged(asking, fake, status):
    fake.answers[GENERATION_PATH] = (status, b"{}")
    replica = asking.watch(fake)
    await asking.health()
    assert replica.ready


async def test_who_was_down_makes_a_token_before_it_is_ready_again(asking, fake):
    fake.answers[GENERATION_PATH] = TOKEN
    replica = asking.watch(fake)
    await asking.health()
    fake.answers["/health"] = (503, b"")
    await asking.health()
    fake.answers["/health"] = (200, b"")
    fake.answers[GENERATION_PATH] = (500, b"")
    await asking.health()
    assert not replica.ready


async def test_one_that_lists_no_models_is_asked_for_any(asking):
    bodies = []

    async def answer(request):
        bodies.append(json.loads(await request.text()))
        return web.json_response({})

    made = FakeReplica()
    made.answers = {"/health": (200, b""), GENERATION_PATH: answer}
    async with started(made) as fake:
        replica = asking.watch(fake, "generic")
        await asking.health()
        assert replica.ready
    assert "model" not in bodies[0]


async def test_health_is_asked_for_where_the_configuration_says(rig, fake):
    fake.answers["/live?deep=1"] = (503, b"")
    replica = rig.fleet.add("r", fake.url)
    rig.poller.watch(replica, health_path="/live?deep=1")
    await rig.health()
    assert replica.health_reason == "/live?deep=1 answers 503"
    fake.answers["/live?deep=1"] = (200, b"")
    await rig.health()
    assert replica.ready


def test_a_health_path_is_a_path():
    text = "replicas: [{url: 'http://a:1', health_path: 'live'}]"
    with pytest.raises(ConfigError, match=r"health_path: must be a path"):
        parse_config(text, "c.yaml", {})
