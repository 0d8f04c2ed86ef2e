"""production-stack's prefixaware: the longest match, and nothing else."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from policies.base import RequestFacts
from policies.prefix_aware import PrefixAware
from policies.testing import View

REPLICAS = [View("a", in_flight=300), View("b"), View("c", in_flight=1)]


def names(*, cached=None, count=60, **options):
    policy = PrefixAware(**options)
    request = RequestFacts(prompt_tokens=1000, cached=cached or {})
    choices = [policy.choose(request, REPLICAS, Random(seed)) for seed in range(count)]
    return {choice.replica.name for choice in choices}, {choice.reason for choice in choices}


def test_the_longest_match_wins_whatever_its_load():
    assert names(cached={"a": 512, "b": 256}) == ({"a"}, {"longest_match"})


def test_one_of_equal_matches_is_drawn():
    assert names(cached={"a": 512, "c": 512, "b": 256}) == ({"a", "c"}, {"longest_match"})


def test_a_new_prompt_goes_anywhere():
    assert names() == ({"a", "b", "c"}, {"no_match"})


def test_each_holder_has_the_same_chance():
    policy, rng = PrefixAware(), Random(5)
    request = RequestFacts(prompt_tokens=1000, cached={"a": 512, "c": 512})
    wins = Counter(policy.choose(request, REPLICAS, rng).replica.name for _ in range(2000))
    # Four standard deviations of a binomial with n = 2000, p = 1/2.
    assert abs(wins["a"] - 1000) < 4 * (2000 * 0.25) ** 0.5


def test_below_the_least_match_load_decides():
    assert names(cached={"a": 255}, min_match_tokens=256) == ({"b"}, {"fewest_requests"})
    assert names(cached={"a": 256}, min_match_tokens=256) == ({"a"}, {"longest_match"})


def test_a_negative_least_match_is_refused():
    with pytest.raises(ValueError, match="min_match_tokens"):
        PrefixAware(min_match_tokens=-1)
