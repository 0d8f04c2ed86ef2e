"""SMG's least_load: time to drain and the barrier before a full KV cache."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.least_load import LeastLoad
from policies.testing import View

REQUEST = RequestFacts(prompt_tokens=500)


def polled(name, *, tokens=0, prefills=0, kv=0.2, waiting=0, in_flight=0):
    return View(
        name,
        waiting=waiting,
        running=0,
        kv_occupancy=kv,
        in_flight=in_flight,
        in_flight_prefills=prefills,
        in_flight_prefill_tokens=tokens,
    )


def chosen(*replicas, seed=0, **options):
    choice = LeastLoad(**options).choose(REQUEST, replicas, Random(seed))
    return choice.replica.name, choice.reason


def test_the_score_is_drain_time_plus_barrier():
    # 4000 tokens at 2000 a second, and 0.15 s x 0.5 / 0.5.
    assert LeastLoad().wait_s(polled("a", tokens=4000, kv=0.5)) == pytest.approx(2.15)
    assert LeastLoad().wait_s(polled("a", kv=1.0)) == pytest.approx(0.15 * 999)


def test_fewer_queued_tokens_win():
    # The source's own case: 8000 against 1000 queued tokens at equal KV.
    a = polled("a", tokens=8000, prefills=1)
    assert chosen(a, polled("b", tokens=1000, prefills=1))[0] == "b"


def test_one_long_prompt_is_more_work_than_many_short_ones():
    assert chosen(polled("a", tokens=500, prefills=20), polled("b", tokens=8000, prefills=1)) == (
        "a",
        "least_wait",
    )


def test_a_queue_that_others_filled_counts_the_mean():
    # The source's own case: 64 against 6 waiting requests of unknown length.
    assert chosen(polled("a", waiting=64), polled("b", waiting=6))[0] == "b"
    assert LeastLoad().wait_s(polled("a", waiting=64, kv=0.0)) == pytest.approx(64 * 1024 / 2000)
    own = polled("a", waiting=4, prefills=4, tokens=400, kv=0.0)
    assert LeastLoad().wait_s(own) == pytest.approx(0.2)


def test_the_barrier_decides_where_nothing_is_queued():
    # The source's own case, weight 2: 98 s against none.
    full = polled("a", kv=0.98)
    assert LeastLoad(kv_pressure_weight=2.0).wait_s(full) == pytest.approx(98)
    assert chosen(full, polled("b", kv=0.0), kv_pressure_weight=2.0)[0] == "b"


def test_a_replica_without_a_sample_is_estimated_in_the_same_unit():
    # The source's own case at 100 tokens a second: 40 s of queue against 5 x 1024 / 100 = 51.2 s.
    a = polled("a", tokens=4000, prefills=1, kv=0.0)
    assert chosen(a, View("b", in_flight=5), default_throughput=100.0)[0] == "a"
    assert chosen(a, View("b", in_flight=3), default_throughput=100.0)[0] == "b"


def test_a_dark_fleet_goes_by_open_requests():
    assert chosen(View("a", in_flight=5), View("b")) == ("b", "own_count")


def test_equal_scores_spread_at_random():
    replicas = [polled(name) for name in "abc"]
    assert {chosen(*replicas, seed=seed)[0] for seed in range(40)} == {"a", "b", "c"}


@pytest.mark.parametrize(
    "options",
    [
        {"kv_pressure_weight": -0.1},
        {"kv_pressure_weight": float("inf")},
        {"mean_prefill_tokens": 0},
        {"default_throughput": 0.0},
        {"default_throughput": float("nan")},
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match="allowed"):
        LeastLoad(**options)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_more_of_anything_never_lowers_the_score(tokens, more, kv, other_kv):
    base = polled("a", tokens=tokens, kv=min(kv, other_kv))
    policy = LeastLoad()
    assert policy.wait_s(replace(base, in_flight_prefill_tokens=tokens + more)) > policy.wait_s(
        base
    )
    assert policy.wait_s(replace(base, kv_occupancy=max(kv, other_kv))) >= policy.wait_s(base)
