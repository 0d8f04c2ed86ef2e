from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from aiohttp import web
from polling_rig import FakeReplica, Hang, models, rigged, started

from router.engines.catalogue import VLLM
from router.polling.connection import Blame, LookFailedError
from router.polling.health import Health


async def test_a_replica_is_ready_once_healthy_and_its_models_listed(rig, fake):
    replica = rig.watch(fake)
    assert not replica.ready
    await rig.health()
    assert replica.ready
    assert replica.models == {"tiny"}
    assert [event for event, _ in rig.fleet.told] == ["models", "healthy"]


async def test_a_refused_connection_is_believed_at_once(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    await fake.stop()
    await rig.health()
    assert not replica.ready
    assert replica.health_reason == "connection refused"


async def test_a_replica_that_comes_back_is_ready_with_its_new_models(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    await fake.stop()
    await rig.health()
    fake.answers["/v1/models"] = (200, models("other", "lora"))
    await fake.start()
    rig.fleet.told.clear()
    await rig.health()
    assert replica.ready
    assert replica.models == {"other", "lora"}
    assert [event for event, _ in rig.fleet.told] == ["models", "healthy"]


async def test_a_replica_that_comes_back_is_not_ready_before_its_models_are_listed(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    fake.answers["/health"] = (503, b"")
    await rig.health()
    fake.answers["/health"] = (200, b"")
    fake.answers["/v1/models"] = (500, b"")
    await rig.health()
    assert not replica.ready
    assert replica.health_reason == "/v1/models answers 500"


async def test_a_503_is_believed_at_once(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    fake.answers["/health"] = (503, b'{"error":"unhealthy"}')
    await rig.health()
    assert not replica.ready
    assert replica.health_reason == "/health answers 503"


async def test_one_silent_look_is_forgiven_and_two_in_a_row_are_not(hasty, fake):
    replica = hasty.watch(fake)
    await hasty.health()
    hang = Hang()
    fake.answers["/health"] = hang
    await hasty.health()
    assert replica.ready
    await hasty.health()
    assert not replica.ready
    assert replica.health_reason == "no answer within 0.1 s"
    hang.let_go.set()
    await hasty.health()
    assert replica.ready


async def test_silent_looks_count_in_a_row_only(hasty, fake):
    replica = hasty.watch(fake)
    await hasty.health()
    hang = Hang()
    for _ in range(3):
        fake.answers["/health"] = hang
        await hasty.health()
        assert replica.ready
        fake.answers["/health"] = (200, b"")
        await hasty.health()
        assert replica.ready


async def test_a_server_that_hangs_up_is_forgiven_once(rig, fake):
    async def hang_up(request):
        request.transport.abort()
        return web.Response()

    replica = rig.watch(fake)
    await rig.health()
    fake.answers["/health"] = hang_up
    await rig.health()
    assert replica.ready
    await rig.health()
    assert not replica.ready
    assert replica.health_reason == "it closed the connection without an answer"


async def test_a_server_that_speaks_no_http_is_not_ready(rig):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        fake = FakeReplica()
        fake._port = listener.getsockname()[1]
        replica = rig.watch(fake, "vllm")
        await rig.pacer.release("health of r")
        loop = asyncio.get_running_loop()
        client, _ = await loop.sock_accept(listener)
        with client:
            assert (await loop.sock_recv(client, 4096)).startswith(b"GET /health ")
            await loop.sock_sendall(client, b"SSH-2.0-OpenSSH_9.2\r\n")
            await rig.pacer.wait("health of r")
    assert not replica.ready
    assert replica.health_reason == "the answer is no HTTP"


async def test_a_redirect_is_not_followed(rig, fake):
    async def away(request):
        raise web.HTTPFound("/v1/models")

    fake.answers["/health"] = away
    replica = rig.watch(fake)
    await rig.health()
    assert replica.health_reason == "/health answers 302"


async def test_both_families_of_localhost_refused_is_a_refusal(rig):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    replica = rig.fleet.add("r", f"http://localhost:{port}")
    rig.poller.watch(replica, "vllm")
    await rig.health()
    assert replica.health_reason == "connection refused"


async def test_running_out_of_descriptors_says_nothing_of_the_replica():
    class Client:
        async def get(self, path):
            raise LookFailedError("the router itself: EMFILE", Blame.OURS)

    health = Health(Client())
    health.alive = True
    for _ in range(5):
        await health.look(VLLM)
    assert health.alive


async def test_a_replica_over_a_unix_socket(rig, tmp_path):
    async with started(FakeReplica.vllm(), path=tmp_path / "replica.sock") as fake:
        replica = rig.watch(fake)
        await rig.both()
        assert replica.ready
        assert replica.running == 2
    (tmp_path / "replica.sock").unlink(missing_ok=True)
    await rig.health()
    assert replica.health_reason == "connection refused"


@pytest.mark.parametrize("status", [404, 405, 401, 403])
async def test_a_list_that_is_not_there_or_not_for_us_means_any_model(rig, fake, status):
    fake.answers["/v1/models"] = (status, b"{}")
    replica = rig.watch(fake)
    await rig.health()
    assert replica.ready
    assert replica.models == frozenset()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, b""), "/v1/models answers 500"),
        ((200, b'{"data":[]}'), "/v1/models lists no model"),
        ((200, b"<html>"), "/v1/models is not readable"),
        ((200, b'{"data":[{"name":"x"}]}'), "/v1/models is not readable"),
    ],
)
async def test_without_its_models_a_replica_is_not_ready(rig, fake, answer, reason):
    good, fake.answers["/v1/models"] = fake.answers["/v1/models"], answer
    replica = rig.watch(fake)
    await rig.health()
    assert not replica.ready
    assert replica.health_reason.startswith(reason)
    fake.answers["/v1/models"] = good
    await rig.health()
    assert replica.ready


async def test_models_are_listed_again_every_two_seconds(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    fake.answers["/v1/models"] = (200, models("tiny", "lora"))
    rig.pacer.now += 1.9
    await rig.health()
    assert replica.models == {"tiny"}
    rig.pacer.now += 0.2
    await rig.health()
    assert replica.models == {"tiny", "lora"}
    assert fake.asked.count("/v1/models") == 2


async def test_a_list_once_read_outlives_a_page_that_is_not(rig, fake):
    replica = rig.watch(fake)
    await rig.health()
    fake.answers["/v1/models"] = (500, b"")
    rig.pacer.now += 5
    await rig.health()
    assert replica.ready
    assert replica.models == {"tiny"}


async def test_changes_are_logged_once_with_their_reason(rig, fake, caplog):
    caplog.set_level(logging.INFO, "pointsman.polling")
    rig.watch(fake, "vllm")
    for _ in range(3):
        await rig.health()
    fake.answers["/health"] = (503, b"")
    for _ in range(3):
        await rig.health()
    fake.answers["/health"] = (200, b"")
    for _ in range(3):
        await rig.health()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "r is ready: tiny"),
        ("WARNING", "r is not ready: /health answers 503"),
        ("INFO", "r is ready: tiny"),
    ]


async def test_a_generic_server_without_health_is_alive_when_it_answers(rig):
    async with started(FakeReplica()) as fake:
        replica = rig.watch(fake, "generic")
        await rig.health()
        assert replica.ready
        assert replica.health_reason == "answers, without /health"
        assert replica.models == frozenset()
        fake.answers["/health"] = (500, b"")
        await rig.health()
        assert not replica.ready


async def test_a_named_engine_must_have_its_health(rig):
    async with started(FakeReplica()) as fake:
        replica = rig.watch(fake, "vllm")
        await rig.health()
        assert replica.health_reason == "/health answers 404"


async def test_a_slow_health_does_not_delay_the_load():
    async with rigged(timeout_s=30.0) as rig, started(FakeReplica.vllm()) as fake:
        hang = Hang()
        fake.answers["/health"] = hang
        replica = rig.watch(fake)
        await rig.pacer.release("health of r")
        await hang.reached.wait()
        for _ in range(3):
            await rig.load()
        assert replica.running == 2
        assert [event for event, _ in rig.fleet.told] == ["sampled"] * 3
        hang.let_go.set()
        await rig.pacer.wait("health of r")
        assert replica.ready


async def test_a_slow_load_does_not_delay_the_health_and_looks_do_not_overlap():
    async with rigged(timeout_s=30.0) as rig, started(FakeReplica.vllm()) as fake:
        hang = Hang()
        fake.answers["/metrics"] = hang
        replica = rig.watch(fake)
        await rig.pacer.release("load of r")
        await hang.reached.wait()
        for _ in range(3):
            await rig.health()
        assert replica.ready
        assert fake.asked.count("/metrics") == 1
        hang.let_go.set()
