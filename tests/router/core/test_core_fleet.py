"""The fleet, its replicas, and their samples."""

from __future__ import annotations

import pytest

from policies.base import RequestFacts
from policies.forecast import Prefill
from policies.survival import Survival
from router.core.estimator import Estimator
from router.core.fleet import FleetState
from router.core.replica import Replica
from router.core.request import Attempt, Request, State
from router.core.sample import Sample


def ready(fleet, name, *models):
    replica = fleet.add(name, f"http://{name}")
    fleet.health_seen(replica, healthy=True, reason="fine")
    fleet.models_seen(replica, models)
    return replica


def test_a_name_is_given_once():
    fleet = FleetState()
    fleet.add("a", "http://a")
    with pytest.raises(ValueError, match="replica 'a' is listed twice"):
        fleet.add("a", "http://other")
    with pytest.raises(KeyError):
        fleet.remove("b")
    fleet.remove("a")
    assert fleet.add("a", "http://other").url == "http://other"


def test_a_replica_is_ready_once_it_is_healthy_and_its_models_are_known():
    fleet = FleetState()
    replica = fleet.add("a", "http://a")
    assert (replica.ready, replica.health_reason) == (False, "not polled yet")
    assert fleet.health_seen(replica, healthy=True, reason="fine")
    assert not replica.ready
    assert not fleet.any_ready()
    assert fleet.models_seen(replica, ["m"])
    assert replica.ready
    assert fleet.any_ready()
    assert fleet.health_seen(replica, healthy=False, reason="HTTP 503")
    assert (replica.ready, replica.health_reason) == (False, "HTTP 503")


def test_only_changes_are_told_as_changes():
    fleet = FleetState()
    replica = ready(fleet, "a", "m")
    assert not fleet.health_seen(replica, healthy=True, reason="still fine")
    assert replica.health_reason == "still fine"
    assert not fleet.models_seen(replica, iter(["m", "m"]))
    assert fleet.models_seen(replica, ["m", "adapter"])


def test_candidates_follow_every_change_at_once():
    fleet = FleetState()
    a, b = ready(fleet, "a", "m"), ready(fleet, "b", "m", "n")
    assert fleet.candidates("m") == (a, b)
    assert fleet.candidates("n") == (b,)
    assert fleet.candidates(None) == (a, b)
    assert fleet.models() == {"m", "n"}
    assert not fleet.uniform()
    fleet.models_seen(a, ["m", "n"])
    assert fleet.candidates("n") == (a, b)
    assert fleet.uniform()
    fleet.health_seen(a, healthy=False, reason="down")
    assert fleet.candidates("m") == (b,)
    fleet.remove("b")
    assert fleet.candidates("m") == ()
    assert fleet.models() == frozenset()
    assert fleet.uniform()


def test_a_replica_that_lists_no_models_gets_any_request():
    fleet = FleetState()
    a, b = ready(fleet, "a"), ready(fleet, "b", "m")
    assert fleet.candidates("m") == (a, b)
    assert fleet.candidates("whatever") == (a,)
    assert fleet.knows("whatever")
    assert fleet.models() == {"m"}


def test_candidates_are_remembered_but_never_by_names_that_clients_make_up():
    fleet = FleetState()
    generic = ready(fleet, "generic")
    ready(fleet, "b", "m")
    first = fleet.candidates("m")
    assert fleet.candidates("m") is first
    remembered = len(fleet._candidates)
    for number in range(1000):
        assert fleet.candidates(f"made-up-{number}") == (generic,)
    assert len(fleet._candidates) == remembered


def test_a_model_is_known_as_long_as_a_replica_may_serve_it():
    fleet = FleetState()
    replica = ready(fleet, "a", "m")
    fleet.add("new", "http://new")
    assert fleet.knows("m")
    assert not fleet.knows("n")
    fleet.health_seen(replica, healthy=False, reason="down")
    assert fleet.knows("m")
    assert fleet.knows("n")
    fleet.remove("new")
    assert not fleet.knows("n")


def test_a_new_sample_is_believed_again_after_an_old_one_expired():
    fleet = FleetState(sample_lifetime_s=1.0)
    replica, other = ready(fleet, "a", "m"), ready(fleet, "b", "m")
    replica.unseen = 3
    fleet.sample_failed(replica, "timed out")
    fleet.sampled(replica, Sample(running=1), 10.0)
    assert (replica.poll_error, replica.unseen, replica.running) == (None, 0, 1)
    fleet.expire_samples(11.0)
    assert replica.running == 1
    fleet.expire_samples(11.01)
    assert replica.running is None
    assert replica.sample == Sample(running=1)
    fleet.sampled(replica, Sample(running=2, waiting=0, kv_occupancy=0.1), 12.0)
    assert (replica.running, replica.waiting, replica.kv_occupancy) == (2, 0, 0.1)
    assert other.running is None


def test_the_snapshot_is_plain_data_about_each_replica():
    fleet = FleetState()
    replica = ready(fleet, "a", "n", "m")
    fleet.add("b", "http://b")
    sample = Sample(
        running=3,
        waiting=1,
        kv_occupancy=0.25,
        preemptions_total=7,
        prefix_queries_total=100,
        prefix_hits_total=40,
        kv_block_tokens=16,
        kv_blocks=1000,
    )
    fleet.engine_seen(replica, "vllm")
    fleet.sampled(replica, sample, 10.0)
    replica.in_flight, replica.in_flight_prompt_tokens = 2, 50
    replica.in_flight_output_tokens, replica.dispatched_total, replica.failed_total = 9, 12, 1
    first, second = fleet.snapshot(10.1234)
    assert first == {
        "name": "a",
        "url": "http://a",
        "engine": "vllm",
        "ready": True,
        "healthy": True,
        "health_reason": "fine",
        "health": replica.health.snapshot(10.1234),
        "models": ["m", "n"],
        "running": 3,
        "waiting": 1,
        "kv_occupancy": 0.25,
        "preemptions_total": 7,
        "prefix_hit_rate": 0.4,
        "kv_block_tokens": 16,
        "kv_blocks": 1000,
        "sample_age_s": 0.123,
        "poll_error": None,
        "own_bookkeeping": None,
        "learned": None,
        "in_flight": 2,
        "in_flight_prompt_tokens": 50,
        "in_flight_output_tokens": 9,
        "role": "both",
        "zone": "",
        "dispatched_total": 12,
        "failed_total": 1,
    }
    assert second["ready"] is False
    assert {second[key] for key in ("models", "running", "prefix_hit_rate", "sample_age_s")} == {
        None
    }


@pytest.mark.parametrize(
    ("queries", "hits", "rate"),
    [(None, None, None), (0, 0, None), (10, None, None), (10, 0, 0.0), (10, 4, 0.4)],
)
def test_the_prefix_hit_rate_is_known_once_something_was_looked_up(queries, hits, rate):
    assert Sample(prefix_queries_total=queries, prefix_hits_total=hits).prefix_hit_rate == rate


@pytest.mark.parametrize(
    ("models", "model", "serves"),
    [
        (None, None, False),
        (None, "m", False),
        ([], None, True),
        ([], "m", True),
        (["m"], None, True),
        (["m"], "m", True),
        (["m"], "n", False),
    ],
)
def test_whom_a_replica_serves(models, model, serves):
    replica = Replica("a", "http://a")
    replica.models = None if models is None else frozenset(models)
    assert replica.serves(model) is serves


def test_they_tell_who_they_are():
    fleet = FleetState()
    waiting, replica = fleet.add("w", "http://w"), ready(fleet, "a", "m")
    request = Request("q-1", RequestFacts(), 0.0)
    assert repr(waiting) == "<Replica w not polled yet>"
    assert repr(replica) == "<Replica a ready>"
    assert repr(request) == "<Request q-1 arrived>"
    assert repr(Attempt(request, replica, 0.0)) == "<Attempt of q-1 on a>"


def test_four_states_are_ends():
    assert {state for state in State if state.ended} == {
        State.DONE,
        State.REFUSED,
        State.FAILED,
        State.GONE,
    }


def test_a_sample_knows_only_of_attempts_sent_before_it_was_asked_for():
    fleet = FleetState()
    replica = fleet.add("a", "http://a")
    replica.unseen = 2
    fleet.look_began(replica)
    replica.unseen += 3
    fleet.sampled(replica, Sample(running=2), 10.0)
    assert replica.unseen == 3
    fleet.look_began(replica)
    fleet.sample_failed(replica, "too slow")
    assert replica.unseen == 3
    fleet.look_began(replica)
    fleet.sampled(replica, Sample(running=5), 11.0)
    assert replica.unseen == 0


def test_the_snapshot_tells_what_was_learned_of_a_replica():
    fleet = FleetState()
    replica = ready(fleet, "a", "m")
    Estimator().joined(replica)
    forecast = replica.forecast
    attempt = Attempt(Request("r", RequestFacts(), 0.0), replica, 0.0)
    forecast.prefills[attempt] = Prefill(0.0, 100, 0, 0.25, 0.06, Survival())
    forecast.prefill_s, forecast.version = 0.25, 1
    assert fleet.snapshot(0.0)[0]["learned"] == {
        "prefill_ms_per_1k_tokens": round(forecast.speed.prefill_time_s(1000) * 1000, 2),
        "step_ms": round(forecast.step_s * 1000, 2),
        "queue_s": 0.25,
    }
