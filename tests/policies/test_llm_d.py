"""llm-d's default profile: three scores, their weights, and the picker's ties."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.llm_d import LlmD
from policies.testing import View

QUEUE_ONLY = {"kv_weight": 0.0, "prefix_weight": 0.0}
KV_ONLY = {"queue_weight": 0.0, "prefix_weight": 0.0}


def polled(name, *, waiting=0, kv=0.0, **own):
    return View(name, waiting=waiting, running=0, kv_occupancy=kv, **own)


def chosen(*replicas, prompt=1000, cached=None, seed=0, **options):
    request = RequestFacts(prompt_tokens=prompt, cached=cached or {})
    return LlmD(**options).choose(request, replicas, Random(seed)).replica.name


def winners(*replicas, **options):
    return {chosen(*replicas, seed=seed, **options) for seed in range(40)}


def test_the_weights_trade_a_prefix_against_a_queue():
    # Queues 10, 5, 0 score 0, 0.5, 1 (the case of the source's own test), times 2.
    a, b, c = polled("a", waiting=10), polled("b", waiting=5), polled("c")
    assert chosen(a, b, c) == "c"
    # 3 x 0.3 = 0.9 is less than the 1.0 that b lacks in the queue, 3 x 0.4 = 1.2 is more.
    assert chosen(a, b, c, cached={"b": 300}) == "c"
    assert chosen(a, b, c, cached={"b": 400}) == "b"
    # a lacks 2.0: 3 x 0.6 does not make up for it, 3 x 0.7 does.
    assert chosen(a, b, c, cached={"a": 600}) == "c"
    assert chosen(a, b, c, cached={"a": 700}) == "a"


def test_the_weights_trade_a_prefix_against_kv():
    # 2 x (0.9 - 0.3) = 1.2 against 3 x 0.39 = 1.17 and 3 x 0.41 = 1.23.
    full, empty = polled("a", kv=0.9), polled("b", kv=0.3)
    assert chosen(full, empty, cached={"a": 390}) == "b"
    assert chosen(full, empty, cached={"a": 410}) == "a"


def test_equal_queues_are_all_best_and_ties_fall_at_random():
    assert winners(polled("a", waiting=5), polled("b", waiting=5)) == {"a", "b"}
    assert winners(polled("a"), polled("b"), polled("c", kv=0.1)) == {"a", "b"}


def test_a_queue_is_weighed_against_the_others_only():
    # One waiting request costs as much as a hundred where nobody else waits.
    assert chosen(polled("a", waiting=1, kv=0.0), polled("b", kv=0.99)) == "b"
    assert chosen(polled("a", waiting=100, kv=0.0), polled("b", kv=0.99)) == "b"


def test_what_the_poll_cannot_know_of_counts_as_queued():
    fresh = polled("a", unseen=3, in_flight_prefills=2, in_flight=3)
    assert chosen(fresh, polled("b", waiting=1), **QUEUE_ONLY) == "b"
    started = polled("a", unseen=3, in_flight_prefills=0, in_flight=3)
    assert chosen(started, polled("b", waiting=1), **QUEUE_ONLY) == "a"


def test_own_attempts_stand_for_a_queue_that_is_not_published():
    assert chosen(View("a", in_flight_prefills=3), polled("b", waiting=2), **QUEUE_ONLY) == "b"
    assert chosen(View("a", in_flight_prefills=1), polled("b", waiting=2), **QUEUE_ONLY) == "a"


def test_own_tokens_stand_for_kv_that_is_not_published():
    unknown = View("a", in_flight_prompt_tokens=300, in_flight_output_tokens=100, kv_tokens=1000)
    assert chosen(unknown, polled("b", kv=0.5), **KV_ONLY) == "a"
    assert chosen(unknown, polled("b", kv=0.3), **KV_ONLY) == "b"
    sizeless = [View("a", in_flight_prompt_tokens=900), View("b", in_flight_prompt_tokens=100)]
    assert chosen(*sizeless, **KV_ONLY) == "b"


def test_a_prompt_of_unknown_length_has_no_prefix_score():
    assert winners(polled("a"), polled("b"), prompt=0, cached={"a": 500}) == {"a", "b"}


@pytest.mark.parametrize("name", ["queue_weight", "kv_weight", "prefix_weight"])
def test_senseless_options_are_refused(name):
    for value in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=name):
            LlmD(**{name: value})


loads = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=8
)


@given(loads, st.sampled_from([2.0, 4.0, 0.5]), st.integers())
def test_only_the_proportion_of_the_weights_matters(loads, factor, seed):
    # Factors and shares are powers of two: scaling them is exact.
    replicas = [polled(f"r{i}", waiting=w, kv=k / 8) for i, (w, k, _) in enumerate(loads)]
    cached = {f"r{i}": c * 128 for i, (_, _, c) in enumerate(loads)}
    scaled = {
        "queue_weight": 2 * factor,
        "kv_weight": 2 * factor,
        "prefix_weight": 3 * factor,
    }
    one = chosen(*replicas, prompt=1024, cached=cached, seed=seed)
    assert one == chosen(*replicas, prompt=1024, cached=cached, seed=seed, **scaled)
