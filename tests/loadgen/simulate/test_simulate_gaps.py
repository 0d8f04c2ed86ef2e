"""Counted gaps have the quantiles of the gaps themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laboratory import STEADY, by_number, simulation_of, trace_of

from loadgen.quantiles import nearest_rank
from loadgen.simulate.gaps import RESOLUTION_S, TokenGaps
from loadgen.simulate.scenario import Hang, Resume
from loadgen.simulate.settings import ReplicaPlan


def test_without_gaps_there_is_none():
    assert TokenGaps().quantile(0.99) is None


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), min_size=1, max_size=30),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_as_the_nearest_rank_of_all_of_them(counted, share):
    gaps = TokenGaps()
    for gap_s, times in counted:
        gaps.add(gap_s, times)
    every = sorted(gap_s for gap_s, times in counted for _ in range(times))
    assert gaps.quantile(share) == pytest.approx(nearest_rank(every, share), abs=RESOLUTION_S)


def lates(trace, late_gap_s, **more):
    """Whether each request was good, one on each replica."""
    simulation = simulation_of(trace, late_gap_s=late_gap_s, **more)
    simulation.run()
    return simulation.missed, len(by_number(simulation))


@pytest.mark.parametrize(("late_gap_s", "missed"), [(None, 0), (0.02, 0), (0.005, 2)])
def test_an_answer_whose_gaps_are_too_long_is_no_good_one(late_gap_s, missed):
    assert lates(trace_of((0.0, 10, 40), (0.0, 10, 300)), late_gap_s) == (missed, 2)


def test_one_gap_in_a_hundred_may_be_late():
    faults = [Hang(0, 0.2), Resume(0, 0.6)]
    trace = trace_of((0.0, 10, 80), (0.0, 10, 102))
    assert lates(trace, 0.1, faults=faults) == (1, 2)
    assert lates(trace, 0.5, faults=faults) == (0, 2)


def test_who_gives_way_has_one_long_gap_and_not_those_of_the_others():
    plan = ReplicaPlan(profile=STEADY, kv_tokens=304)
    trace = trace_of((0.0, 96, 180), (0.0, 96, 101))
    simulation = simulation_of(trace, plans=[plan], late_gap_s=0.05)
    simulation.run()
    assert simulation.stations[simulation.fleet.replicas["r0"]].preemptions == 1
    assert simulation.missed == 0  # one in a hundred
    assert simulation.gaps.quantile(1.0) > 0.05
