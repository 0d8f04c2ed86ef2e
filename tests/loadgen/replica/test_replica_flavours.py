"""Other engines' manners: metric names, health, errors, and their own endpoints."""

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadgen import tokens

TEXT = "/v1/completions"
BUSY = {"prompt": [1] * 400, "max_tokens": 3000, "ignore_eos": True, "stream": True}


async def busy(client):
    """One request running and one waiting; returns what ends them."""
    responses = [await client.session.post(client.url + TEXT, json=BUSY) for _ in range(1)]
    await responses[0].content.readany()
    waiting = asyncio.ensure_future(client.post(TEXT, {**BUSY, "stream": False}))
    for _ in range(2000):
        if client.replica.engine.waiting:
            break
        await asyncio.sleep(0.005)

    async def end():
        waiting.cancel()
        responses[0].close()
        for _ in range(2000):
            if not client.replica.jobs:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("a job was left")

    return end


@pytest.mark.parametrize(
    ("engine", "running", "waiting", "usage"),
    [
        (
            "vllm",
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:kv_cache_usage_perc",
        ),
        ("sglang", "sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"),
        ("tgi", "tgi_batch_current_size", "tgi_queue_size", None),
        ("llamacpp", "llamacpp:requests_processing", "llamacpp:requests_deferred", None),
    ],
)
async def test_gauges_by_each_engines_name(start, engine, running, waiting, usage):
    client = await start(engine=engine, speed=1.0, max_sequences=1, kv_tokens=8000)
    end = await busy(client)
    gauges = await client.gauges()
    assert (gauges[running], gauges[waiting]) == (1.0, 1.0)
    if usage is not None:
        assert 400 / 8000 <= gauges[usage] < 0.6
    assert gauges["pointsman_replica_clock_lag_seconds"] >= 0
    await end()
    gauges = await client.gauges()
    assert (gauges[running], gauges[waiting]) == (0.0, 0.0)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tgi", "llamacpp"])
async def test_every_page_is_well_formed(start, engine):
    client = await start(engine=engine, adapters=("lora",), models=('quo"ted',))
    await client.post(TEXT, {"prompt": "a", "max_tokens": 20, "ignore_eos": True})
    page = (await client.get("/metrics"))[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert len(families) > 8
    for family in families.values():
        if family.type == "histogram":
            buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
            assert buckets == sorted(buckets)
            assert buckets[-1] == next(s.value for s in family.samples if s.name.endswith("_count"))


async def test_vllms_page_names_what_routers_read(start):
    client = await start(adapters=("lora",), kv_tokens=16_000, speed=1.0)
    body = {**BUSY, "model": "lora"}
    response = await client.session.post(client.url + TEXT, json=body)
    await response.content.readany()
    page = (await client.get("/metrics"))[1].decode()
    assert 'vllm:num_requests_running{engine="0",model_name="llama-3-8b"} 1.0\n' in page
    assert 'block_size="16"' in page
    assert 'num_gpu_blocks="1000"' in page
    assert (
        'vllm:lora_requests_info{max_lora="1",running_lora_adapters="lora",'
        'waiting_lora_adapters=""}' in page
    )
    assert 'vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",' in page
    assert len(page) > 40_000, "as heavy with histograms as a real one"
    response.close()
    for _ in range(2000):
        if not client.replica.jobs:
            break
        await asyncio.sleep(0.005)
    assert 'finished_reason="abort",model_name="llama-3-8b"} 1.0' in (
        (await client.get("/metrics"))[1].decode()
    )


async def test_the_histograms_count_what_happened(start):
    client = await start(speed=200.0)
    for _ in range(3):
        await client.post(TEXT, {"prompt": [5] * 100, "max_tokens": 11, "ignore_eos": True})
    gauges = await client.gauges()
    for name, count in {
        "time_to_first_token_seconds": 3,
        "e2e_request_latency_seconds": 3,
        "inter_token_latency_seconds": 30,
        "request_time_per_output_token_seconds": 3,
        "iteration_tokens_total": 33,
        "request_prefill_kv_computed_tokens": 3,
    }.items():
        assert gauges[f"vllm:{name}_count"] == count, name
    assert gauges["vllm:generation_tokens_total"] == 33
    assert gauges["vllm:prompt_tokens_total"] == 300
    assert gauges["vllm:iteration_tokens_total_sum"] == 100 + 2 * (100 - 96) + 33
    itl_s = gauges["vllm:inter_token_latency_seconds_sum"] / 30
    assert itl_s == pytest.approx(0.0087, rel=0.2)


@pytest.mark.parametrize(
    ("engine", "body"),
    [("vllm", b""), ("sglang", b""), ("tgi", b""), ("llamacpp", b'{"status": "ok"}')],
)
async def test_health_in_each_engines_words(start, engine, body):
    client = await start(engine=engine)
    assert await client.get("/health") == (200, body)
    loading = await start(engine=engine, load_s=3600.0)
    assert (await loading.get("/health"))[0] == 503


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        ("vllm", {"type": "BadRequestError", "param": "max_tokens", "code": 400}),
        ("sglang", {"type": "BadRequestError", "param": "max_tokens", "code": 400}),
        ("llamacpp", {"type": "invalid_request_error", "code": 400}),
    ],
)
async def test_errors_in_each_engines_words(start, engine, error):
    client = await start(engine=engine)
    status, answer = await client.post(TEXT, {"prompt": "a", "max_tokens": 0})
    assert status == 400
    message = answer["error"].pop("message")
    assert "max_tokens" in message
    assert answer == {"error": error}


async def test_tgis_errors_are_a_text_and_a_type(start):
    client = await start(engine="tgi")
    status, answer = await client.post(TEXT, {"prompt": "a", "max_tokens": 0})
    assert status == 400
    assert answer["error_type"] == "validation"
    assert isinstance(answer["error"], str)


@pytest.mark.parametrize("engine", ["sglang", "tgi", "llamacpp"])
async def test_only_vllm_minds_an_unknown_model(start, engine):
    client = await start(engine=engine)
    assert (await client.post(TEXT, {"prompt": "a", "model": "nope"}))[0] == 200


async def test_llamacpp_sends_its_head_with_the_first_token(start):
    client = await start(engine="llamacpp", speed=1.0)
    request = asyncio.ensure_future(client.session.post(client.url + TEXT, json=BUSY))
    await client.post("/faults", {"hang": {"health": True}})
    done, _ = await asyncio.wait([request], timeout=0.2)
    assert not done
    await client.post("/faults", {"hang": None})
    response = await request
    assert (await response.content.readany()).startswith(b"data: {")
    response.close()
    for _ in range(2000):
        if not client.replica.jobs:
            break
        await asyncio.sleep(0.005)


async def test_sglangs_own_generation(start):
    client = await start(engine="sglang")
    parameters = {"max_new_tokens": 4, "ignore_eos": True}
    body = {"input_ids": [1, 2, 3], "sampling_params": parameters, "rid": "r1"}
    status, whole = await client.post("/generate", body)
    assert status == 200
    assert whole["text"] == tokens.decode(whole["output_ids"])
    assert whole["meta_info"]["finish_reason"] == {"type": "length", "length": 4}
    assert whole["meta_info"]["id"] == "r1"
    assert whole["meta_info"]["prompt_tokens"] == 3
    streamed = await client.stream("/generate", body)
    assert [event["meta_info"]["completion_tokens"] for event in streamed[:-1]] == [1, 2, 3, 4]
    assert streamed[-2]["text"] == whole["text"]
    assert streamed[-1] == "[DONE]"
    stop = whole["text"].split(" ")[2]
    stopped = (await client.post("/generate", {"input_ids": [1, 2, 3], "sampling_params": {
        **parameters, "stop": [stop]}}))[1]  # fmt: skip
    assert stopped["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}
    assert (await client.post("/generate", {}))[0] == 400


async def test_sglangs_load_reports(start):
    client = await start(engine="sglang", speed=1.0, max_sequences=1)
    end = await busy(client)
    load = json.loads((await client.get("/v1/loads"))[1])["loads"][0]
    assert (load["num_running_reqs"], load["num_waiting_reqs"]) == (1, 1)
    assert load["num_used_tokens"] >= 400
    old = json.loads((await client.get("/get_load"))[1])[0]
    assert (old["num_reqs"], old["num_waiting_reqs"]) == (2, 1)
    await end()
    info = json.loads((await client.get("/get_server_info"))[1])
    assert info["max_total_num_tokens"] == client.replica.engine.kv_tokens
    assert json.loads((await client.get("/model_info"))[1])["is_generation"] is True
    assert (await client.get("/health_generate"))[0] == 200


async def test_tgis_own_generation(start):
    client = await start(engine="tgi")
    body = {"inputs": "hello there", "parameters": {"max_new_tokens": 5, "details": True}}
    whole = (await client.post("/generate", body))[1]
    assert whole["details"]["generated_tokens"] == len(whole["details"]["tokens"]) == 5
    assert "".join(t["text"] for t in whole["details"]["tokens"]) == whole["generated_text"]
    async with client.session.post(client.url + "/generate_stream", json=body) as response:
        events = [json.loads(e[5:]) for e in (await response.read()).split(b"\n\n") if e]
    assert [event["index"] for event in events] == [1, 2, 3, 4, 5]
    assert events[-1]["generated_text"] == whole["generated_text"]
    assert events[-1]["details"]["finish_reason"] == "length"
    bare = (await client.post("/generate", {"inputs": "hello there"}))[1]
    assert set(bare) == {"generated_text"}
    info = json.loads((await client.get("/info"))[1])
    assert info["max_total_tokens"] == client.replica.max_model_tokens


async def test_llamacpps_slots(start):
    client = await start(engine="llamacpp", speed=1.0, max_sequences=1)
    assert json.loads((await client.get("/slots"))[1])[0]["is_processing"] is False
    end = await busy(client)
    assert json.loads((await client.get("/slots"))[1])[0]["is_processing"] is True
    assert (await client.get("/slots?fail_on_no_slot=1"))[0] == 503
    await end()


async def test_vllms_small_endpoints(client):
    assert json.loads((await client.get("/version"))[1]) == {"version": "0.32.0"}
    assert (await client.get("/ping"))[0] == 200
    assert json.loads((await client.get("/load"))[1]) == {"server_load": 0}
    assert (await client.get("/get_load"))[0] == 404
