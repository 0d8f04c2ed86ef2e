from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.round_robin import RoundRobin
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.frozen import LEAST_CHANGES, LEAST_LOOKS, Gauges
from router.core.sample import Sample

SAME = Sample(running=3, waiting=1, kv_occupancy=0.25)


def look(fleet, replica, sample, there):
    """A whole look, with ``there`` own requests that it could see."""
    replica.in_flight, replica.unseen = there, 0
    fleet.look_began(replica)
    fleet.sampled(replica, sample, 10.0)


@pytest.fixture
def fleet():
    state = FleetState()
    state.add("a", "http://a")
    return state


@pytest.fixture
def replica(fleet):
    return fleet.replicas["a"]


def test_gauges_that_stand_still_while_requests_come_and_go_are_not_believed(fleet, replica):
    for number in range(LEAST_LOOKS):
        look(fleet, replica, SAME, number % 3)
        assert (replica.blind, replica.running) == (None, 3)
    look(fleet, replica, SAME, 0)
    assert (replica.blind, replica.running, replica.waiting) == ("frozen", None, None)
    assert replica.kv_occupancy is None
    look(fleet, replica, Sample(running=2, waiting=1, kv_occupancy=0.25), 1)
    assert (replica.blind, replica.running) == (None, 2)


@pytest.mark.parametrize("sample", [SAME, Sample(running=0, waiting=0)])
def test_gauges_may_stand_still_where_nothing_moves(fleet, replica, sample):
    for _ in range(10 * LEAST_LOOKS):
        look(fleet, replica, sample, 2)
        assert replica.blind is None


def test_a_counter_that_moves_shows_that_they_live(fleet, replica):
    for number in range(10 * LEAST_LOOKS):
        sample = Sample(running=3, waiting=1, prefix_queries_total=number // (LEAST_LOOKS - 1))
        look(fleet, replica, sample, number % 3)
        assert replica.blind is None


def test_an_engine_that_tells_no_queue_may_be_full_for_long(fleet, replica):
    for number in range(10 * LEAST_LOOKS):
        look(fleet, replica, Sample(running=4), number % 5)
        assert replica.blind is None


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), max_size=60))
def test_the_watch_agrees_with_a_count_from_the_beginning(looks):
    gauges = Gauges()
    for number, (running, there) in enumerate(looks):
        gauges.seen(Sample(running=running, waiting=0), there)
        same = looks[: number + 1]
        while any(value != running for value, _ in same):
            same = same[1:]
        changes = sum(a != b for (_, a), (_, b) in pairwise(same))
        still = len(same) > LEAST_LOOKS and changes >= LEAST_CHANGES
        assert gauges.frozen == still


def test_why_a_replica_is_judged_by_own_bookkeeping_alone(fleet, replica):
    assert replica.blind == "missing"
    fleet.sampled(replica, Sample(kv_block_tokens=16), 10.0)
    assert replica.blind == "missing"
    fleet.sampled(replica, SAME, 10.0)
    assert replica.blind is None
    assert fleet.expire_samples(20.0) == [replica]
    assert replica.blind == "late"
    assert fleet.snapshot(20.0)[0]["own_bookkeeping"] == "late"


@pytest.mark.parametrize("how", ["late", "frozen"])
def test_strangers_are_forgotten_with_the_gauges_that_told_of_them(fleet, replica, how):
    dispatcher = Dispatcher(fleet, RoundRobin(), Random(1), observer=None)
    dispatcher.models_seen(replica, ["m"])
    for number in range(LEAST_LOOKS):
        replica.in_flight = number % 2
        dispatcher.look_began(replica)
        dispatcher.sampled(replica, SAME, 10.0)
        assert replica.forecast.foreign_waiting == min(number, 1)
    assert replica.forecast.foreign_streams > 0
    if how == "late":
        dispatcher.tick(20.0)
    else:
        replica.in_flight = LEAST_LOOKS % 2
        dispatcher.look_began(replica)
        dispatcher.sampled(replica, SAME, 10.0)
    assert replica.blind == how
    forecast = replica.forecast
    assert (forecast.foreign_waiting, forecast.foreign_streams, forecast.foreign_seen) == (0, 0, 0)
