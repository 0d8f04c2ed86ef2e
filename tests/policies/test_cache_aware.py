"""SGLang's cache_aware: prefix while the load is even, shortest line otherwise."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.cache_aware import CacheAware
from policies.testing import View


def fleet(*in_flight, last=None):
    last = last or [0] * len(in_flight)
    return [
        View(name, in_flight=n, last_dispatch=d)
        for name, n, d in zip("abcdefgh", in_flight, last, strict=False)
    ]


def chosen(replicas, *, prompt=1000, cached=None, **options):
    request = RequestFacts(prompt_tokens=prompt, cached=cached or {})
    choice = CacheAware(**options).choose(request, replicas, Random(0))
    return choice.replica.name, choice.reason


def test_the_longest_match_wins_over_load_while_that_is_even():
    assert chosen(fleet(64, 0, 3), cached={"a": 800, "b": 400}) == ("a", "longest_match")


def test_uneven_load_needs_both_thresholds():
    # SGLang: (max - min) > 64 and max > 1.5 x min.
    cached = {"a": 1000}
    assert chosen(fleet(65, 0), cached=cached) == ("b", "uneven_load")
    assert chosen(fleet(64, 0), cached=cached) == ("a", "longest_match")
    assert chosen(fleet(195, 130), cached=cached) == ("a", "longest_match")
    assert chosen(fleet(196, 130), cached=cached) == ("b", "uneven_load")


def test_the_case_of_the_sources_own_test():
    # 20 requests on one worker, none on the other, thresholds 5 and 2.0: always the other.
    options = {"cache_threshold": 0.5, "balance_abs_threshold": 5, "balance_rel_threshold": 2.0}
    assert chosen(fleet(20, 0), cached={"a": 1000}, **options) == ("b", "uneven_load")


def test_a_match_must_exceed_the_threshold():
    assert chosen(fleet(9, 0), cached={"a": 300}) == ("b", "no_match")
    assert chosen(fleet(9, 0), cached={"a": 301}) == ("a", "longest_match")


def test_a_threshold_of_zero_still_wants_a_match():
    assert chosen(fleet(9, 0), cached={"a": 0}, cache_threshold=0.0) == ("b", "no_match")
    assert chosen(fleet(9, 0), cached={"a": 1}, cache_threshold=0.0) == ("a", "longest_match")


def test_without_a_match_the_fewest_requests_win_in_turn():
    assert chosen(fleet(2, 1, 1, last=[1, 7, 5])) == ("c", "no_match")
    assert chosen(fleet(2, 1), prompt=0, cached={}) == ("b", "no_match")


def test_of_equal_matches_the_less_loaded_one_wins():
    assert chosen(fleet(5, 2, 0), cached={"a": 900, "b": 900}) == ("b", "longest_match")


def test_a_match_elsewhere_than_among_the_candidates_is_none():
    assert chosen(fleet(3, 1), cached={"z": 1000}) == ("b", "no_match")


@pytest.mark.parametrize(
    "options",
    [
        {"cache_threshold": 1.1},
        {"cache_threshold": float("nan")},
        {"balance_abs_threshold": -1},
        {"balance_rel_threshold": 0.9},
        {"balance_rel_threshold": float("inf")},
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match="allowed"):
        CacheAware(**options)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 1000)), min_size=1, max_size=8),
    st.integers(2, 50),
)
def test_only_the_share_that_is_cached_matters(views, factor):
    replicas = fleet(*[n for n, _ in views])
    cached = {r.name: match for r, (_, match) in zip(replicas, views, strict=True)}
    longer = {name: match * factor for name, match in cached.items()}
    once = chosen(replicas, prompt=1000, cached=cached, cache_threshold=0.25)
    assert once == chosen(replicas, prompt=1000 * factor, cached=longer, cache_threshold=0.25)
