import asyncio
import gc

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from router.core.request import Failure
from router.telemetry.metrics import Metrics
from router.telemetry.page import write_page
from router.telemetry.pieces import PIECE_SAMPLES
from router.telemetry.status import Traffic
from tests.fakes.fake_router import FakeRouter

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"


async def page(router, accept=""):
    body, _ = await write_page(Metrics(router).pieces(), accept)
    return body.decode()


async def samples(router):
    """Every sample of the page, by name and labels."""
    families = parse_text(await page(router))
    return {
        (s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }


async def test_the_state_of_each_replica_is_there():
    router = FakeRouter(replicas=["a:1", "b:1"])
    router.sample("a:1", running=7, waiting=2, kv_occupancy=0.25)
    router.fleet.sample_failed(router.fleet.replicas["b:1"], "refused")
    router.time_s += 1.5
    request = router.arrive(prompt_tokens=300)
    router.dispatcher.progress(request.attempt, 12, 102.0)
    found = await samples(router)
    name = request.attempt.replica.name
    expected = {
        ("ready", "a:1"): 1,
        ("ready", "b:1"): 1,
        ("metrics_failing", "a:1"): 0,
        ("metrics_failing", "b:1"): 1,
        ("running_requests", "a:1"): 7,
        ("waiting_requests", "a:1"): 2,
        ("kv_occupancy_ratio", "a:1"): 0.25,
        ("sample_age_seconds", "a:1"): 1.5,
        ("in_flight_requests", name): 1,
        ("in_flight_prompt_tokens", name): 300,
        ("in_flight_output_tokens", name): 12,
        ("attempts_total", name): 1,
        ("attempt_failures_total", name): 0,
    }
    for (metric, replica), value in expected.items():
        assert found[f"pointsman_replica_{metric}", f"replica={replica}"] == value, metric


async def test_what_is_not_known_is_absent_and_not_zero():
    router = FakeRouter(replicas=["a:1"])
    found = await samples(router)
    for metric in ("running_requests", "waiting_requests", "kv_occupancy_ratio"):
        assert (f"pointsman_replica_{metric}", "replica=a:1") not in found
    assert ("pointsman_replica_sample_age_seconds", "replica=a:1") not in found


async def test_what_the_dispatcher_counted_is_there():
    router = FakeRouter(replicas=["a:1", "b:1"])
    router.serve()
    first = router.arrive()
    router.dispatcher.attempt_failed(first.attempt, Failure.RESET, 101.0)
    router.arrive("unknown")
    found = await samples(router)
    assert found["pointsman_requests_arrived_total",] == 3
    assert found["pointsman_open_requests",] == 1
    assert found["pointsman_attempts_total",] == 3
    assert found["pointsman_attempt_failures_total", "kind=reset"] == 1
    assert found["pointsman_policy_choices_total", "reason=turn"] == 3
    assert found["pointsman_policy_errors_total",] == 0
    ended = {k[1:]: v for k, v in found.items() if k[0] == "pointsman_requests_ended_total"}
    assert sorted(ended.values()) == [1, 1]
    assert ("end=refused", "model=other", "replica=none", "status=4xx") in ended


async def test_latencies_are_there_as_histograms():
    router = FakeRouter(replicas=["a:1"])
    router.serve(ttft_s=0.3, e2e_s=4.0, prompt_tokens=1000)
    found = await samples(router)
    where = ("model=m", "replica=a:1")
    ttft = "pointsman_request_ttft_seconds"
    assert found[f"{ttft}_bucket", "le=0.2", *where] == 0
    assert found[f"{ttft}_bucket", "le=0.35", *where] == 1
    assert found[f"{ttft}_bucket", "le=+Inf", *where] == found[f"{ttft}_count", *where] == 1
    assert found[f"{ttft}_sum", *where] == pytest.approx(0.3)
    e2e = "pointsman_request_e2e_seconds"
    assert found[f"{e2e}_sum", *where, "status=2xx"] == 4.0
    assert found["pointsman_request_prompt_tokens_bucket", "le=1024.0", "model=m"] == 1
    assert found["pointsman_request_prompt_tokens_bucket", "le=512.0", "model=m"] == 0


async def test_the_data_plane_is_there():
    router = FakeRouter()
    router.numbers = Traffic(
        client_connections=1,
        client_connections_total=2,
        upstream_idle=3,
        upstream_busy=4,
        buffered_bytes=5,
        received_bytes_total=6,
        sent_bytes_total=7,
        refused_total={400: 8, 413: 9},
        continuation_bytes=10,
        continuations_total={"continued": 11},
        continuation_requests_total={"tokens": 12},
        not_continued_total={"choices": 13},
    )
    found = await samples(router)
    assert found["pointsman_client_connections",] == 1
    assert found["pointsman_client_connections_accepted_total",] == 2
    assert found["pointsman_upstream_connections", "state=idle"] == 3
    assert found["pointsman_upstream_connections", "state=busy"] == 4
    assert found["pointsman_buffered_bytes",] == 5
    assert found["pointsman_client_received_bytes_total",] == 6
    assert found["pointsman_client_sent_bytes_total",] == 7
    assert found["pointsman_refusals_total", "status=400"] == 8
    assert found["pointsman_refusals_total", "status=413"] == 9
    assert found["pointsman_continuation_buffer_bytes",] == 10
    assert found["pointsman_continuations_total", "outcome=continued"] == 11
    assert found["pointsman_continuation_requests_total", "method=tokens"] == 12
    assert found["pointsman_not_continued_total", "reason=choices"] == 13


async def test_the_router_and_its_process_are_there():
    router = FakeRouter()
    router.telemetry.loop_lag_s.observe(0.004)
    found = await samples(router)
    assert found["pointsman_uptime_seconds",] == 10.0
    [build] = [key for key in found if key[0] == "pointsman_build_info"]
    assert "policy=round_robin" in build
    assert found["pointsman_event_loop_lag_seconds_bucket", "le=0.005"] == 1
    assert found["process_resident_memory_bytes",] > 0
    assert found["process_open_fds",] > 0


async def test_every_metric_of_ours_has_help_and_the_names_prometheus_wants():
    router = FakeRouter()
    router.serve()
    families = list(parse_openmetrics(await page(router, OPENMETRICS)))
    ours = [family for family in families if family.name.startswith("pointsman_")]
    assert len(ours) == len({family.name for family in ours}) == 65
    for family in ours:
        assert family.documentation.endswith("."), family.name
        assert family.type != "unknown"


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_a_family_in_pieces_has_one_head_and_all_its_series(accept):
    names = [f"gpu-{number}:8000" for number in range(2 * PIECE_SAMPLES + 1)]
    router = FakeRouter(replicas=names)
    for _ in names:
        router.serve()
    text = await page(router, accept)
    lines = text.splitlines()
    assert sum(line.startswith("# TYPE pointsman_replica_ready ") for line in lines) == 1
    assert sum(line.startswith("pointsman_replica_ready{") for line in lines) == len(names)
    assert sum(line.startswith("# TYPE pointsman_request_ttft") for line in lines) == 1
    counts = [line for line in lines if line.startswith("pointsman_request_ttft_seconds_count{")]
    assert len(counts) == len(names)
    assert text.count("# EOF\n") == (1 if accept else 0)
    assert text.endswith("# EOF\n") is bool(accept)
    parse = parse_openmetrics if accept else parse_text
    families = {family.name: family for family in parse(text)}
    assert len(families["pointsman_replica_ready"].samples) == len(names)


async def test_other_tasks_run_while_a_large_page_is_written():
    router = FakeRouter(replicas=[f"gpu-{number}:8000" for number in range(300)])
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await page(router)
    task.cancel()
    await asyncio.wait([task])
    pieces = sum(1 for _ in Metrics(router).pieces())
    assert pieces > 50
    assert turns >= pieces


async def test_requests_may_come_and_go_while_a_page_is_written():
    router = FakeRouter(replicas=["a:1", "b:1"])
    router.serve()

    async def traffic():
        for number in range(100):
            router.serve(status=200 + 100 * (number % 4))
            router.join(f"new-{number}:1", ["m", f"model-{number}"])
            router.serve(f"model-{number}")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(traffic())
        pages = [group.create_task(page(router, OPENMETRICS)) for _ in range(3)]
    for one in pages:
        list(parse_openmetrics(one.result()))


def test_each_router_has_its_own_numbers():
    first, second = Metrics(FakeRouter()), Metrics(FakeRouter())
    assert first.registry is not second.registry
    gc.collect()  # both watch the collector; neither breaks it
