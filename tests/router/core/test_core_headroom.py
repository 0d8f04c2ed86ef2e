"""What a fleet can do without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.speed import Speed
from router.core.headroom import (
    Capacity,
    Headroom,
    Load,
    Rate,
    capacity,
    headroom,
    together,
)

FLEET = [
    Capacity(10_000.0, 100_000),
    Capacity(20_000.0, 50_000),
    Capacity(10_000.0, 100_000),
]


def test_headroom_is_what_is_left():
    left = headroom(together(FLEET), Load(30_000.0, 100_000))
    assert left == Headroom(10_000.0, pytest.approx(137_500))
    assert left.carries
    assert left.fits(137_500)
    assert not left.fits(137_501)


def test_the_largest_is_lost_of_each_resource():
    carried = together(FLEET, lose=1)
    assert headroom(carried, Load(19_000.0, 100_000)) == Headroom(1_000.0, pytest.approx(42_500))
    assert not headroom(carried, Load(21_000.0, 0)).carries
    assert not headroom(carried, Load(0.0, 150_000)).carries


def test_a_kv_cache_of_unknown_size_is_no_bound():
    left = headroom(together([*FLEET, Capacity(1.0, None)], lose=1), Load(1.0, 10**9))
    assert left.kv_tokens is None
    assert left.carries


def test_losing_all_leaves_nothing():
    assert headroom(together(FLEET, lose=9), Load(0.0, 0)) == Headroom(0.0, 0.0)
    assert not headroom(together([]), Load(1.0, 0)).carries


def test_capacity_follows_from_the_learned_speed():
    speed = Speed(prefill_s=0.1, token_s=1e-4, pair_s=0.0)
    assert capacity(speed, 5, 1000).prefill_tokens_per_s == pytest.approx(0.8 * 1000 / 0.2)
    assert capacity(speed, 5, 0).kv_tokens == 5


@given(
    sizes=st.lists(st.tuples(st.floats(1, 1e5), st.integers(1, 10**6)), min_size=1, max_size=8),
    lose=st.integers(0, 4),
)
def test_losing_any_leaves_no_less_than_losing_the_largest(sizes, lose):
    fleet = [Capacity(*size) for size in sizes]
    worst = together(fleet, lose=lose)
    for first in range(len(sizes) - lose + 1):
        left = together([*fleet[:first], *fleet[first + lose :]])
        assert left.prefill_tokens_per_s >= worst.prefill_tokens_per_s - 1e-6
        assert left.kv_tokens >= worst.kv_tokens - 1e-6


def test_a_rate_follows_what_comes():
    rate = Rate(10.0)
    for tenth in range(1000):
        rate.add(50, 1000 + tenth / 10)
    assert rate.per_s(1100.0) == pytest.approx(500, rel=0.05)
    assert rate.per_s(1110.0) == pytest.approx(500 / 2.718, rel=0.05)
    assert rate.per_s(2000.0) < 1e-6
