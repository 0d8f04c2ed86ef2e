from __future__ import annotations

import logging

import pytest
from aiohttp import web
from polling_rig import FakeReplica, Hang, models, page, started

from router.core.sample import Sample


def counted(caplog, text):
    return [r.levelname for r in caplog.records if text in r.getMessage()]


async def test_the_sample_is_of_the_moment_of_the_look(rig, fake):
    replica = rig.watch(fake)
    rig.pacer.now = 1234.5
    await rig.load()
    assert replica.sampled_s == 1234.5
    assert (replica.running, replica.waiting) == (2, 1)
    assert replica.sample.kv_blocks == 8192
    assert rig.poller.engine(replica) == "vllm"


SERVERS = {
    "vllm": ("vllm", {"/metrics": (200, page("vllm_0_8.txt"))}, Sample(running=5, waiting=2)),
    "sglang": ("sglang", {"/metrics": (200, page("sglang_0_5.txt"))}, Sample(running=9, waiting=3)),
    "sglang without --enable-metrics": (
        "sglang",
        {"/v1/loads?include=core": (200, page("sglang_v1_loads.json"))},
        Sample(running=5, waiting=1),
    ),
    "older sglang without --enable-metrics": (
        "sglang",
        {"/get_load": (200, page("sglang_get_load.json"))},
        Sample(running=6, waiting=2),
    ),
    "tgi": ("tgi", {"/metrics": (200, page("tgi.txt"))}, Sample(running=4, waiting=3)),
    "trtllm with perf metrics": (
        "trtllm",
        {
            "/metrics": (200, page("trtllm_iterations.json")),
            "/prometheus/metrics": (200, page("trtllm_prometheus.txt")),
        },
        Sample(running=5, waiting=3),
    ),
    "trtllm": (
        "trtllm",
        {
            "/metrics": (200, page("trtllm_iterations.json")),
            "/prometheus/metrics": (200, b"up 1\n"),
        },
        Sample(running=5, waiting=3),
    ),
    "llamacpp": (
        "llamacpp",
        {"/metrics": (200, page("llamacpp.txt"))},
        Sample(running=2, waiting=4),
    ),
    "llamacpp without --metrics": (
        "llamacpp",
        {"/metrics": (501, b"{}"), "/slots": (200, page("llamacpp_slots.json"))},
        Sample(running=1),
    ),
}


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("named", [False, True])
async def test_every_engine_is_read_wherever_it_tells_its_load(rig, kind, named):
    engine, answers, expected = SERVERS[kind]
    async with started(FakeReplica()) as fake:
        fake.answers = answers
        replica = rig.watch(fake, engine if named else "auto")
        for _ in range(2):
            await rig.load()
            assert rig.poller.engine(replica) == engine
            assert replica.running == expected.running
            assert replica.waiting == expected.waiting
            assert replica.poll_error is None


async def test_the_place_that_answered_is_asked_first_from_then_on(rig):
    async with started(FakeReplica()) as fake:
        fake.answers = {"/get_load": (200, page("sglang_get_load.json"))}
        rig.watch(fake, "sglang")
        await rig.load()
        fake.asked.clear()
        await rig.load()
    assert fake.asked == ["/get_load"]


async def test_llamacpp_with_nothing_switched_on_is_known_by_its_server_header(rig):
    async with started(FakeReplica()) as fake:
        fake.headers = {"Server": "llama.cpp"}
        fake.answers = {"/metrics": (501, b"{}"), "/slots": (501, b"{}")}
        replica = rig.watch(fake)
        await rig.load()
        assert rig.poller.engine(replica) == "llamacpp"
        assert replica.poll_error == "/metrics answers 501; /slots answers 501"


async def test_vllm_without_statistics_is_known_by_its_version(rig, caplog):
    async with started(FakeReplica()) as fake:
        fake.answers = {
            "/metrics": (200, b"python_info 1\n"),
            "/version": (200, b'{"version":"0.32.0"}'),
        }
        replica = rig.watch(fake)
        for _ in range(3):
            await rig.load()
        assert rig.poller.engine(replica) == "vllm"
        assert "--disable-log-stats" in replica.poll_error
        assert counted(caplog, "no metrics, routing on own bookkeeping") == ["WARNING"]


async def test_a_server_without_metrics_is_generic_and_asked_seldom(rig):
    async with started(FakeReplica()) as fake:
        replica = rig.watch(fake)
        pauses = []
        for _ in range(6):
            await rig.load()
            pauses.append(rig.pacer.pauses["load of r"])
        assert rig.poller.engine(replica) == "generic"
        assert pauses[0] < 2.0
        assert pauses[1:] == [4.0, 8.0, 10.0, 10.0, 10.0]
        assert replica.poll_error is None
        assert replica.sample is None


async def test_one_named_generic_is_never_asked_for_its_load(rig, fake):
    rig.watch(fake, "generic")
    for _ in range(3):
        await rig.health()
    assert "load of r" not in rig.pacer.pauses
    assert "/metrics" not in fake.asked


async def test_a_generic_server_that_turns_out_to_be_an_engine(rig):
    async with started(FakeReplica()) as fake:
        replica = rig.watch(fake)
        await rig.load()
        fake.answers["/metrics"] = (200, page("tgi.txt"))
        await rig.load()
        assert rig.poller.engine(replica) == "tgi"
        assert replica.running == 4


async def test_another_engine_behind_the_same_address_is_recognised(rig, fake):
    replica = rig.watch(fake)
    await rig.both()
    await fake.stop()
    await rig.health()
    fake.answers["/metrics"] = (200, page("llamacpp.txt"))
    await fake.start()
    await rig.both()
    assert rig.poller.engine(replica) == "llamacpp"
    assert (replica.running, replica.waiting) == (2, 4)


async def test_another_engine_is_recognised_though_no_look_found_it_gone(rig, fake):
    replica = rig.watch(fake)
    await rig.both()
    fake.answers["/metrics"] = (200, page("sglang_0_5.txt"))
    await rig.load()
    assert rig.pacer.pauses["load of r"] < 0.3
    await rig.load()
    assert rig.poller.engine(replica) == "sglang"
    assert replica.running == 9


async def test_metrics_that_are_not_there_are_asked_for_seldom(rig, fake):
    fake.answers["/metrics"] = (404, b"")
    rig.watch(fake, "vllm")
    pauses = []
    for _ in range(5):
        await rig.load()
        pauses.append(rig.pacer.pauses["load of r"])
    assert max(pauses[:1]) < 0.3
    assert pauses[1:] == [2.0, 4.0, 8.0, 10.0]
    fake.answers["/metrics"] = (200, page("vllm_0_8.txt"))
    await rig.load()
    assert rig.pacer.pauses["load of r"] < 0.3


async def test_a_named_engine_is_kept(rig, fake):
    replica = rig.watch(fake, "vllm")
    await rig.both()
    fake.answers["/metrics"] = (200, page("sglang_0_5.txt"))
    for _ in range(3):
        await rig.load()
    assert rig.poller.engine(replica) == "vllm"
    assert replica.poll_error.startswith("/metrics: no line starts with vllm:")


async def test_broken_metrics_never_take_a_replica_out_and_are_told_once(rig, fake, caplog):
    caplog.set_level(logging.INFO, "pointsman.polling")
    replica = rig.watch(fake)
    await rig.both()
    good = fake.answers["/metrics"]
    broken = {
        "/metrics answers 500": (500, b"oops"),
        "/metrics answers 404": (404, b""),
        "/metrics: no number on the line": (200, good[1].replace(b"} 2.0", b"} two")),
        "/metrics: no line starts with": (200, b"\x00\xff" * 50_000),
    }
    for reason, answer in broken.items():
        fake.answers["/metrics"] = answer
        await rig.both()
        assert replica.ready
        if replica.poll_error is not None:  # 404 twice: the engine is in doubt, not the replica
            assert replica.poll_error.startswith((reason, "/metrics answers"))
    assert counted(caplog, "no metrics, routing on own bookkeeping")[:1] == ["WARNING"]
    fake.answers["/metrics"] = good
    await rig.both()
    await rig.both()
    assert replica.poll_error is None
    assert counted(caplog, "metrics are back")[-1:] == ["INFO"]


async def test_hanging_metrics_never_take_a_replica_out(hasty, fake, caplog):
    caplog.set_level(logging.INFO, "pointsman.polling")
    replica = hasty.watch(fake)
    await hasty.both()
    good, hang = fake.answers["/metrics"], Hang()
    fake.answers["/metrics"] = hang
    for _ in range(3):
        await hasty.both()
    assert replica.ready
    assert replica.poll_error == "no answer within 0.1 s"
    assert replica.sample.running == 2  # the fleet knows how old that is
    fake.answers["/metrics"] = good
    await hasty.load()
    assert counted(caplog, "no metrics") == ["WARNING"]
    assert counted(caplog, "metrics are back") == ["INFO"]
    assert hasty.poller.counters.load_failures == 3
    hang.let_go.set()


async def test_an_endless_page_never_takes_a_replica_out(rig, fake):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"vllm:x 1\n" * 100_000)

    replica = rig.watch(fake)
    await rig.both()
    fake.answers["/metrics"] = endless
    await rig.both()
    assert replica.ready
    assert replica.poll_error == "the answer is longer than 8388608 bytes"


async def test_a_renamed_gauge_is_told_once(rig, fake, caplog):
    status, text = fake.answers["/metrics"]
    fake.answers["/metrics"] = (status, text.replace(b"kv_cache_usage_perc", b"renamed"))
    replica = rig.watch(fake)
    for _ in range(3):
        await rig.load()
    assert replica.kv_occupancy is None
    assert replica.running == 2
    assert counted(caplog, "neither vllm:kv_cache_usage_perc") == ["WARNING"]


async def test_a_replica_asleep_is_not_ready_until_it_wakes(rig, fake):
    replica = rig.watch(fake)
    await rig.both()
    awake, fake.answers["/metrics"] = fake.answers["/metrics"], (200, page("vllm_asleep.txt"))
    await rig.load()
    assert not replica.ready
    assert replica.health_reason.startswith("asleep")
    await rig.health()
    assert not replica.ready
    fake.answers["/metrics"] = awake
    await rig.load()
    assert replica.ready


async def test_broken_metrics_do_not_keep_a_replica_asleep(rig, fake):
    fake.answers["/metrics"] = (200, page("vllm_asleep.txt"))
    replica = rig.watch(fake)
    await rig.both()
    assert not replica.ready
    fake.answers["/metrics"] = (500, b"")
    await rig.load()
    assert not replica.ready
    await rig.load()
    assert replica.ready


async def test_a_replica_that_is_down_is_not_asked_for_its_load(rig, fake):
    rig.watch(fake)
    fake.answers["/health"] = (503, b"loading")
    await rig.health()
    fake.asked.clear()
    for _ in range(3):
        await rig.load()
    assert fake.asked == []


async def test_lora_adapters_are_models(rig, fake):
    fake.answers["/v1/models"] = (200, models("base", "adapter-a"))
    replica = rig.watch(fake)
    await rig.health()
    assert rig.fleet.candidates("adapter-a") == (replica,)
