"""Dynamo's KV cost, its documents' example, and its temperature."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.dynamo_kv import DynamoKv
from policies.testing import View


def chosen(*replicas, prompt=10, cached=None, seed=0, **options):
    request = RequestFacts(prompt_tokens=prompt, cached=cached or {})
    return DynamoKv(**options).choose(request, replicas, Random(seed)).replica.name


def documented():
    """Three workers with 10, 5 and 9 decode blocks."""
    return [
        View(name, in_flight_prompt_tokens=decode)
        for name, decode in (("one", 10), ("two", 5), ("three", 9))
    ]


CACHED = {"one": 2, "two": 5, "three": 8}


def test_the_example_of_its_documents():
    # Ten blocks to prefill, of which 2, 5 and 8 are cached: 8 + 10, 5 + 5 and 2 + 9. They leave
    # out the ten that the request will hold anywhere.
    policy = DynamoKv()
    request = RequestFacts(prompt_tokens=10, cached=CACHED)
    costs = [policy.cost(request, replica) - 10 for replica in documented()]
    assert costs == [18, 10, 11]
    assert chosen(*documented(), cached=CACHED) == "two"


def test_a_higher_scale_of_prefill_follows_the_cache():
    # 2 x 8 + 10, 2 x 5 + 5 = 15 and 2 x 2 + 9 = 13.
    assert chosen(*documented(), cached=CACHED, prefill_load_scale=2.0) == "three"


def test_no_credit_for_the_cache_leaves_load_alone():
    replicas = [View("a", in_flight_prompt_tokens=100), View("b", in_flight_prompt_tokens=90)]
    assert chosen(*replicas, cached={"a": 10}, overlap_score_credit=0.0) == "b"


def test_prefills_under_way_count_beside_the_kv_they_hold():
    # Equal KV, but a still has 40 tokens to compute.
    a = View("a", in_flight_prompt_tokens=50, in_flight_prefill_tokens=40)
    b = View("b", in_flight_prompt_tokens=60)
    assert chosen(a, b) == "b"


def test_the_credit_never_makes_prefill_negative():
    request = RequestFacts(prompt_tokens=10, cached={"a": 10})
    assert DynamoKv(overlap_score_credit=3.0).cost(request, View("a")) == 10


def test_streamed_tokens_count_when_tracked():
    a = View("a", in_flight_prompt_tokens=10, in_flight_output_tokens=50)
    b = View("b", in_flight_prompt_tokens=20)
    assert chosen(a, b) == "a"
    assert chosen(a, b, router_track_output_blocks=True) == "b"


def test_ties_fall_at_random():
    assert {chosen(View("a"), View("b"), seed=seed) for seed in range(40)} == {"a", "b"}


def test_a_temperature_draws_by_the_softmax_of_scaled_costs():
    replicas = [View(n, in_flight_prompt_tokens=t) for n, t in (("a", 0), ("b", 500), ("c", 1000))]
    policy, rng = DynamoKv(router_temperature=0.5), Random(7)
    request = RequestFacts(prompt_tokens=10)
    wins = Counter(policy.choose(request, replicas, rng).replica.name for _ in range(6000))
    weights = [math.exp(-scaled / 0.5) for scaled in (0, 0.5, 1)]
    for name, weight in zip("abc", weights, strict=True):
        assert wins[name] / 6000 == pytest.approx(weight / sum(weights), abs=0.03)


def test_a_temperature_over_equal_costs_is_even():
    names = {chosen(View("a"), View("b"), seed=s, router_temperature=0.1) for s in range(40)}
    assert names == {"a", "b"}


@pytest.mark.parametrize(
    "name", ["overlap_score_credit", "prefill_load_scale", "router_temperature"]
)
def test_senseless_options_are_refused(name):
    for value in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=name):
            DynamoKv(**{name: value})


loads = st.lists(
    st.tuples(st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 1000)),
    min_size=1,
    max_size=8,
)


# Powers of two: scaling is exact, so even the drawn ones must agree.
@given(loads, st.sampled_from([2, 16, 64]), st.integers(), st.sampled_from([0.0, 0.3]))
def test_the_size_of_a_block_does_not_matter(loads, block, seed, temperature):
    def choose(unit):
        replicas = [
            View(f"r{i}", in_flight_prompt_tokens=d * unit, in_flight_prefill_tokens=p * unit)
            for i, (d, p, _) in enumerate(loads)
        ]
        cached = {f"r{i}": c * unit for i, (_, _, c) in enumerate(loads)}
        return chosen(
            *replicas,
            prompt=1000 * unit,
            cached=cached,
            seed=seed,
            router_temperature=temperature,
        )

    assert choose(1) == choose(block)
