"""Draining, and what a fleet can do without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.speed import Speed
from router.core.drain import DrainRefusedError, DrainSettings, Unit, check_drain, rolling_order
from router.core.headroom import Capacity, Headroom, Load, Rate, capacity, headroom

FLEET = {
    "a": Capacity(10_000.0, 100_000),
    "b": Capacity(20_000.0, 50_000),
    "c": Capacity(10_000.0, 100_000),
}


def test_a_drain_that_leaves_enough_is_allowed():
    check_drain("a", ["a", "b"], DrainSettings())
    check_drain("a", ["a", "b", "c"], DrainSettings(min_ready=2))


def test_a_drain_that_leaves_too_few_is_refused_in_one_line():
    with pytest.raises(DrainRefusedError) as caught:
        check_drain("a", ["a", "b"], DrainSettings(min_ready=2))
    assert str(caught.value) == (
        "draining a would leave 1 replicas in service, at least 2 must stay;"
        " force it to drain all the same"
    )


def test_a_forced_drain_is_not_refused():
    check_drain("a", ["a"], DrainSettings(), force=True)


def test_what_is_out_of_service_may_be_drained():
    check_drain("a", ["b"], DrainSettings(min_ready=5))


def units(*in_flight):
    return [
        Unit(name, count is not None, count or 0)
        for name, count in zip("abcdefgh", in_flight, strict=False)
    ]


def test_those_that_have_least_to_end_are_restarted_first():
    assert rolling_order(units(5, 1, 3), DrainSettings()) == [("b",), ("c",), ("a",)]


def test_those_that_nobody_misses_are_restarted_together():
    waves = rolling_order(units(5, None, 3, None), DrainSettings(min_ready=3))
    assert waves == [("b", "d"), ("c",), ("a",)]


def test_waves_are_no_larger_than_what_may_be_missed():
    waves = rolling_order(units(1, 2, 3, 4), DrainSettings(min_ready=2), at_once=3)
    assert waves == [("a", "b"), ("c", "d")]


def test_waves_are_no_larger_than_the_load_allows():
    waves = rolling_order(
        units(1, 2, 3, 4), DrainSettings(), lambda names: len(names) < 3, at_once=4
    )
    assert [len(wave) for wave in waves] == [2, 2]


def test_a_fleet_that_can_do_without_none_is_not_restarted():
    with pytest.raises(DrainRefusedError, match="a cannot be restarted: of 1 replicas at least 1"):
        rolling_order(units(3), DrainSettings())
    with pytest.raises(DrainRefusedError, match="must carry the load"):
        rolling_order(units(3, 4), DrainSettings(), lambda _: False)


@given(
    in_flight=st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=8),
    min_ready=st.integers(0, 8),
    at_once=st.integers(1, 8),
    bearable=st.integers(0, 8),
)
def test_every_replica_is_restarted_once_or_none_is(in_flight, min_ready, at_once, bearable):
    fleet = units(*in_flight)
    in_service = [unit for unit in fleet if unit.in_service]
    able = not in_service or (len(fleet) > min_ready and bearable)
    arguments = (fleet, DrainSettings(min_ready=min_ready), lambda names: len(names) <= bearable)
    if not able:
        with pytest.raises(DrainRefusedError):
            rolling_order(*arguments, at_once=at_once)
        return
    waves = rolling_order(*arguments, at_once=at_once)
    assert sorted(name for wave in waves for name in wave) == sorted(u.name for u in fleet)
    idle = {unit.name for unit in fleet if not unit.in_service}
    for wave in waves:
        if set(wave) != idle:
            assert len(wave) <= min(at_once, bearable, len(fleet) - min_ready)


def test_headroom_is_what_is_left():
    left = headroom(FLEET, Load(30_000.0, 100_000))
    assert left == Headroom(10_000.0, pytest.approx(137_500))
    assert left.carries
    assert left.fits(137_500)
    assert not left.fits(137_501)


def test_the_largest_is_lost_of_each_resource():
    left = headroom(FLEET, Load(19_000.0, 100_000), lose=1)
    assert left == Headroom(1_000.0, pytest.approx(42_500))
    assert not headroom(FLEET, Load(21_000.0, 0), lose=1).carries
    assert not headroom(FLEET, Load(0.0, 150_000), lose=1).carries


def test_the_fleet_without_some_carries_less():
    assert not headroom(FLEET, Load(21_000.0, 0), without={"b"}).carries
    assert headroom(FLEET, Load(21_000.0, 0), without={"a"}).carries


def test_a_kv_cache_of_unknown_size_is_no_bound():
    fleet = {**FLEET, "d": Capacity(1.0, None)}
    left = headroom(fleet, Load(1.0, 10**9), lose=1)
    assert left.kv_tokens is None
    assert left.carries


def test_losing_all_leaves_nothing():
    assert headroom(FLEET, Load(0.0, 0), lose=9) == Headroom(0.0, 0.0)
    assert not headroom({}, Load(1.0, 0)).carries


def test_capacity_follows_from_the_learned_speed():
    speed = Speed(prefill_s=0.1, token_s=1e-4, pair_s=0.0)
    assert capacity(speed, 5, 1000).prefill_tokens_per_s == pytest.approx(0.8 * 1000 / 0.2)
    assert capacity(speed, 5, 0).kv_tokens == 5


@given(
    sizes=st.lists(st.tuples(st.floats(1, 1e5), st.integers(1, 10**6)), min_size=1, max_size=8),
    load=st.builds(Load, st.floats(0, 1e5), st.integers(0, 10**6)),
    lose=st.integers(0, 4),
)
def test_losing_any_leaves_no_less_than_losing_the_largest(sizes, load, lose):
    fleet = {str(number): Capacity(*size) for number, size in enumerate(sizes)}
    worst = headroom(fleet, load, lose=lose)
    for first in range(len(sizes) - lose + 1):
        lost = [str(number) for number in range(first, first + lose)]
        left = headroom(fleet, load, without=lost)
        assert left.prefill_tokens_per_s >= worst.prefill_tokens_per_s - 1e-6
        assert left.kv_tokens >= worst.kv_tokens - 1e-6


def test_a_rate_follows_what_comes():
    rate = Rate(10.0)
    for tenth in range(1000):
        rate.add(50, 1000 + tenth / 10)
    assert rate.per_s(1100.0) == pytest.approx(500, rel=0.05)
    assert rate.per_s(1110.0) == pytest.approx(500 / 2.718, rel=0.05)
    assert rate.per_s(2000.0) < 1e-6
