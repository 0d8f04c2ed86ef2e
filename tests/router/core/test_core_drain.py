"""Which replicas may be drained, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.drain_rules import (
    DrainRefusedError,
    DrainSettings,
    Unit,
    check_drain,
    rolling_order,
)


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
    with pytest.raises(DrainRefusedError, match="not even a can be restarted: of 1 replicas"):
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
