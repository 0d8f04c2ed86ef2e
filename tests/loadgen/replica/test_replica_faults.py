"""Faults, switched while the replica runs."""

import asyncio
import json

import aiohttp
import pytest

from loadgen.replica.scrape import HUGE_BYTES

TEXT = "/v1/completions"
LONG = {"prompt": "a", "max_tokens": 30, "ignore_eos": True}


async def test_faults_are_shown_set_one_by_one_and_cleared(client):
    whole = {
        "hang": None,
        "slow": 1.0,
        "errors": None,
        "cut": None,
        "metrics": "ok",
        "health": "ok",
    }
    assert json.loads((await client.get("/faults"))[1]) == whole
    status, state = await client.post("/faults", {"slow": 2.5, "errors": {"share": 0.5}})
    assert status == 200
    assert state == {
        **whole,
        "slow": 2.5,
        "errors": {"share": 0.5, "status": 500, "retry_after_s": None},
    }
    state = (await client.post("/faults", {"slow": None, "metrics": "frozen"}))[1]
    assert (state["slow"], state["metrics"], state["errors"]["share"]) == (1.0, "frozen", 0.5)
    async with client.session.delete(client.url + "/faults") as response:
        assert await response.json() == whole


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"slwo": 2}, "unknown field `slwo`"),
        ({"slow": 0}, "$.slow"),
        ({"errors": {"share": 1.5}}, "$.errors.share"),
        ({"errors": {"status": 200}}, "$.errors.status"),
        ({"cut": {"how": "rst"}}, "after_tokens"),
        ({"cut": {"after_tokens": 1, "how": "gently"}}, "$.cut.how"),
        ({"metrics": "weird"}, "$.metrics"),
        ([], "Expected `object`"),
        (b"{", "truncated"),
    ],
)
async def test_a_fault_that_there_is_not_is_refused_and_changes_nothing(client, body, message):
    before = (await client.get("/faults"))[1]
    status, answer = await client.post("/faults", body)
    assert status == 400
    assert message in answer["error"]["message"]
    assert (await client.get("/faults"))[1] == before


async def test_crash_ends_the_process(client):
    await client.post("/faults", {"crash": True})
    assert client.crashes == [True]


async def test_a_share_of_the_requests_gets_an_error(client):
    fault = {"errors": {"share": 0.5, "status": 503, "retry_after_s": 7}}
    await client.post("/faults", fault)
    seen = []
    for _ in range(60):
        async with client.session.post(client.url + TEXT, json=LONG) as response:
            seen.append(response.status)
            if response.status == 503:
                assert response.headers["Retry-After"] == "7"
                assert (await response.json())["error"]["code"] == 503
    assert set(seen) == {200, 503}
    assert 15 < seen.count(503) < 45
    assert (await client.get("/health"))[0] == 200


async def test_slow_stretches_every_step(start):
    client = await start(speed=1000.0)
    replica = client.replica
    await client.post(TEXT, LONG)
    plain = replica.statistics.e2e_s.total
    await client.post("/faults", {"slow": 10})
    assert replica.engine.slowdown == 10
    await client.post(TEXT, LONG)
    assert replica.statistics.e2e_s.total - plain == pytest.approx(10 * plain, rel=0.05)


async def read_to_the_break(response):
    """What came, and the error with which it ended; a clean end has none."""
    received = b""
    try:
        while part := await response.content.readany():
            received += part
    except aiohttp.ClientError as error:
        return received, str(error)
    return received, None


@pytest.mark.parametrize("how", ["rst", "fin", "torn"])
@pytest.mark.parametrize("after", [0, 1, 10])
async def test_streams_break_after_so_many_tokens(client, how, after):
    await client.post("/faults", {"cut": {"after_tokens": after, "how": how}})
    body = {**LONG, "stream": True}
    async with client.session.post(client.url + TEXT, json=body) as response:
        assert response.status == 200
        received, error = await read_to_the_break(response)
    assert error is not None, "a broken stream must not look like one that has ended"
    assert ("reset by peer" in error) == (how == "rst")
    if how != "rst":  # a reset may overtake what was sent before it
        assert received.count(b"data: {") == after + (how == "torn")
        assert received.endswith(b"\n\n") or how == "torn" or not received
    assert b"[DONE]" not in received
    await idle(client)
    await client.post("/faults", {"cut": None})
    assert (await client.stream(TEXT, LONG))[-1] == "[DONE]"


async def idle(client):
    for _ in range(2000):
        if not client.replica.jobs:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("a job was left")


async def test_a_stalled_stream_stays_open_and_silent(client):
    await client.post("/faults", {"cut": {"after_tokens": 3, "how": "stall"}})
    received = b""
    async with client.session.post(client.url + TEXT, json={**LONG, "stream": True}) as response:
        while received.count(b"data: ") < 3:
            received += await response.content.readany()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                received += await response.content.readany()
        assert received.count(b"data: ") == 3
        assert client.replica.jobs
        response.close()
    await idle(client)


async def test_an_unstreamed_answer_is_not_cut(client):
    await client.post("/faults", {"cut": {"after_tokens": 0}})
    assert (await client.post(TEXT, LONG))[0] == 200


async def test_a_hanging_replica_answers_nothing_until_it_is_healed(start):
    client = await start(speed=1.0)
    async with client.session.post(client.url + TEXT, json={**LONG, "stream": True}) as running:
        await running.content.readany()
        await client.post("/faults", {"hang": True})
        waiting = [
            asyncio.ensure_future(client.post(TEXT, LONG)),
            asyncio.ensure_future(client.get("/health")),
            asyncio.ensure_future(client.get("/metrics")),
        ]
        before = client.replica.engine.generated_tokens_total
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        assert client.replica.engine.generated_tokens_total == before
        await client.post("/faults", {"hang": None})
        assert [(await each)[0] for each in waiting] == [200, 200, 200]
        rest = await running.content.read()
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_wedged_engine_still_answers_health_and_metrics(client):
    await client.post("/faults", {"hang": {"health": True}})
    stuck = asyncio.ensure_future(client.post(TEXT, LONG))
    assert (await client.get("/health"))[0] == 200
    assert (await client.get("/v1/models"))[0] == 200
    assert (await client.gauges())["vllm:num_requests_running"] == 0
    assert not stuck.done()
    await client.post("/faults", {"hang": False})
    assert (await stuck)[0] == 200


async def test_health_can_be_broken_while_answers_go_on(client):
    await client.post("/faults", {"health": "error"})
    assert (await client.get("/health"))[0] == 503
    assert (await client.post(TEXT, LONG))[0] == 200
    await client.post("/faults", {"health": "ok"})
    assert (await client.get("/health"))[0] == 200
    await client.post("/faults", {"health": "slow"})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.get("/health")


async def test_the_metrics_page_can_be_broken_in_every_way(client):
    await client.post("/faults", {"metrics": "error"})
    assert (await client.get("/metrics"))[0] == 500

    await client.post("/faults", {"metrics": "garbage"})
    status, garbage = await client.get("/metrics")
    assert (status, len(garbage)) == (200, 4096)
    assert b"vllm:" not in garbage

    await client.post("/faults", {"metrics": "frozen"})
    frozen = (await client.get("/metrics"))[1]
    await client.post(TEXT, LONG)
    assert (await client.get("/metrics"))[1] == frozen
    await client.post("/faults", {"metrics": "ok"})
    assert (await client.get("/metrics"))[1] != frozen

    await client.post("/faults", {"metrics": "huge"})
    huge = (await client.get("/metrics"))[1]
    assert len(huge) > 0.9 * HUGE_BYTES
    assert b"vllm:num_requests_running" in huge

    await client.post("/faults", {"metrics": "slow"})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.get("/metrics")


async def test_while_the_model_is_loaded_all_is_503_but_the_faults(start):
    client = await start(load_s=3600.0)
    for path in ("/health", "/v1/models", "/metrics"):
        assert (await client.get(path))[0] == 503
    async with client.session.post(client.url + TEXT, json=LONG) as response:
        assert response.status == 503
    assert (await client.get("/faults"))[0] == 200
    client.replica.load_now()
    assert (await client.get("/health"))[0] == 200
    assert (await client.post(TEXT, LONG))[0] == 200
