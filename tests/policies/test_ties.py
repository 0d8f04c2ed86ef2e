"""Ties: all that are equally good have the same chance, and only a tie costs a draw."""

from __future__ import annotations

from collections import Counter
from random import Random

from policies.testing import View
from policies.ties import least

REPLICAS = [View("a"), View("b"), View("c")]


def test_the_least_cost_wins_without_any_draw():
    rng = Random(1)
    before = rng.getstate()
    assert least(REPLICAS, [3, 1, 2], rng).name == "b"
    assert rng.getstate() == before


def test_equals_share_evenly_and_others_get_nothing():
    rng = Random(1)
    wins = Counter(least(REPLICAS, [1.0, 2.0, 1.0], rng).name for _ in range(2000))
    assert set(wins) == {"a", "c"}
    # Four standard deviations of a binomial with n = 2000, p = 1/2.
    assert abs(wins["a"] - 1000) < 4 * (2000 * 0.25) ** 0.5


def test_infinite_costs_still_name_a_replica():
    assert least(REPLICAS, [float("inf")] * 3, Random(1)) in REPLICAS
