import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from policies.base import Choice
from router.admin.handlers import fleet_page
from router.core.admission import HeadroomSettings
from router.core.health import Health
from router.telemetry.metrics import Metrics
from router.telemetry.page import write_page
from tests.fakes.fake_router import FakeRouter

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class Holding:
    """Lets every request wait."""

    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "later", hold=True)


async def families(router):
    body, _ = await write_page(Metrics(router).pieces(), OPENMETRICS)
    return {family.name: family for family in parse(body.decode())}


async def samples(router):
    return {
        (s.name, *s.labels.values()): s.value
        for family in (await families(router)).values()
        for s in family.samples
    }


async def assert_waiting(router, expected):
    found, page = await samples(router), fleet_page(router)["held"]
    for why in ("better_moment", "no_replica", "lost_replica"):
        requests, tokens = expected.get(why, (0, 0))
        assert found["pointsman_held_requests", why] == requests
        assert found["pointsman_held_prompt_tokens", why] == tokens
        assert page[why] == {"requests": requests, "prompt_tokens": tokens}


async def test_what_waits_is_told_with_why():
    router = FakeRouter()
    router.dispatcher.chooser.policy = Holding()
    router.arrive(prompt_tokens=70)
    router.arrive(prompt_tokens=30)
    await assert_waiting(router, {"better_moment": (2, 100)})
    for replica in router.fleet.replicas.values():
        router.dispatcher.health_seen(replica, router.now(), healthy=False, reason="down")
    router.arrive(prompt_tokens=5)
    await assert_waiting(router, {"no_replica": (3, 105)})
    found = await samples(router)
    assert found["pointsman_requests_held_total",] == 3
    for name in ("shed", "expired", "stranded"):
        assert found[f"pointsman_requests_{name}_total",] == 0


async def test_headroom_is_told_and_what_was_refused_for_it():
    router = FakeRouter()
    router.dispatcher.admission.settings = HeadroomSettings(lose=2)
    request = router.arrive(prompt_tokens=70)
    assert request.status == 429
    found = await samples(router)
    assert found["pointsman_requests_over_headroom_total",] == 1
    assert found["pointsman_headroom_prefill_tokens_per_second",] == 0
    assert ("pointsman_headroom_kv_tokens",) not in found
    for name in router.fleet.replicas:
        router.sample(name, kv_blocks=100, kv_block_tokens=10)
    router.dispatcher.admission.settings = HeadroomSettings(lose=1)
    found = await samples(router)
    assert found["pointsman_headroom_prefill_tokens_per_second",] > 1000
    assert found["pointsman_headroom_kv_tokens",] == 950


async def test_times_waited_are_a_histogram_of_those_that_waited():
    router = FakeRouter()
    router.serve()
    policy, router.dispatcher.chooser.policy = router.dispatcher.chooser.policy, Holding()
    held = [router.arrive(), router.arrive()]
    router.time_s += 0.25
    name = "pointsman_request_held_seconds"
    assert (await samples(router))[f"{name}_count",] == 0
    router.dispatcher.chooser.policy = policy
    router.dispatcher.tick(router.now())
    assert all(request.attempt is not None for request in held)
    found = await samples(router)
    assert [found[f"{name}_bucket", le] for le in ("0.2", "0.5", "+Inf")] == [0, 2, 2]
    assert found[f"{name}_sum",] == 0.5


async def test_errors_of_predictions_are_histograms():
    router = FakeRouter()
    router.dispatcher.estimator.ttft.observe(1.0, 2.0)
    router.dispatcher.estimator.ttft.observe(1.0, 1.01)
    router.dispatcher.estimator.e2e.observe(70.0, 10.0)
    found = await samples(router)
    ttft, e2e = "pointsman_ttft_prediction_error_ratio", "pointsman_e2e_prediction_error_ratio"
    assert found[f"{ttft}_count",] == 2
    assert found[f"{ttft}_sum",] == pytest.approx(0.5 + 0.01 / 1.01)
    assert [found[f"{ttft}_bucket", le] for le in ("0.02", "0.4", "0.6", "+Inf")] == [1, 1, 2, 2]
    assert [found[f"{e2e}_bucket", le] for le in ("5.0", "+Inf")] == [0, 1]
    told = fleet_page(router)["prediction_error"]
    assert (told["ttft"]["count"], told["e2e"]["count"]) == (2, 1)
    assert 0 < told["ttft"]["p50"] <= 0.4 < told["ttft"]["p90"] <= 0.6


async def test_the_prefix_index_and_the_decisions_are_told_with_their_size():
    router = FakeRouter()
    router.dispatcher.prefix_index.sent("a:1", (1, 2, 3), 16)
    router.serve()
    found = await samples(router)
    index, decisions = router.dispatcher.prefix_index, router.dispatcher.decisions
    assert found["pointsman_prefix_index_blocks",] == index.blocks == 3
    assert found["pointsman_prefix_index_bytes",] == index.bytes > 0
    assert found["pointsman_decisions_kept",] == 1
    assert found["pointsman_decisions_kept_bytes",] == decisions.bytes > 0
    assert fleet_page(router)["prefix_index"] == {"blocks": 3, "bytes": index.bytes}
    router.dispatcher.decisions = None
    assert "pointsman_decisions_kept" not in await families(router)


async def test_health_and_speed_of_each_replica_are_told():
    router = FakeRouter()
    dispatcher, first = router.dispatcher, router.fleet.replicas["a:1"]
    dispatcher.models_seen(first, ["m"])
    dispatcher.drain("b:1", router.now())
    found = await samples(router)
    assert found["pointsman_replica_health", "a:1", "ready"] == 1
    assert found["pointsman_replica_health", "b:1", "draining"] == 1
    assert sum(1 for key in found if key[0] == "pointsman_replica_health") == 2
    assert found["pointsman_replica_weight", "a:1"] == 1
    assert found["pointsman_replica_weight", "b:1"] == 0
    assert found["pointsman_replica_ejections_total", "a:1"] == 0
    for name in ("prefill_seconds_per_1k_tokens", "step_seconds"):
        assert found[f"pointsman_replica_{name}", "a:1"] > 0
    assert found["pointsman_replica_queue_seconds", "a:1"] == 0
    learned = msgspec.to_builtins(fleet_page(router)["replicas"])[0]["learned"]
    prefill_s = found["pointsman_replica_prefill_seconds_per_1k_tokens", "a:1"]
    assert learned["prefill_ms_per_1k_tokens"] == pytest.approx(prefill_s * 1000, abs=0.01)
    help_text = (await families(router))["pointsman_replica_health"].documentation
    assert all(state.value in help_text for state in Health)


async def test_replicas_without_gauges_to_believe_are_told_with_why():
    router = FakeRouter()
    router.sample("a:1", running=1, waiting=0)
    found = await samples(router)
    assert found["pointsman_replica_own_bookkeeping", "missing", "b:1"] == 1
    router.time_s += 60
    router.dispatcher.tick(router.now())
    found = await samples(router)
    assert found["pointsman_replica_own_bookkeeping", "late", "a:1"] == 1
    told = {r["name"]: r["own_bookkeeping"] for r in fleet_page(router)["replicas"]}
    assert told == {"a:1": "late", "b:1": "missing"}
