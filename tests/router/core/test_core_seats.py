"""How many requests an engine works on at once, from what its gauges show."""

from __future__ import annotations

import pytest
from house import House

from policies.base import RequestFacts
from policies.forecast import Prefill, Stream
from policies.least_requests import LeastRequests
from policies.survival import Survival
from policies.transfer import Transfer
from router.core.dispatcher import Limits
from router.core.request import Request
from router.core.sample import Sample


@pytest.fixture
def house():
    return House("a", policy=LeastRequests(), limits=Limits())


def streams(house, count):
    forecast = house.fleet.replicas["a"].forecast
    forecast.streams.clear()
    for number in range(count):
        forecast.streams[number] = Stream(99.0, 100.0, 50, 500, 0.06, Survival())
    forecast.prefills["w"] = Prefill(house.now - 1.0, 100, 0, 0.01, 0.06, Survival())
    return forecast


def look(house, running, waiting, occupancy=0.2):
    replica = house.fleet.replicas["a"]
    sample = Sample(running=running, waiting=waiting, kv_occupancy=occupancy)
    house.dispatcher.sampled(replica, sample, house.now)
    return replica.forecast.seats


def test_two_looks_at_others_that_wait_beside_streams_tell(house):
    streams(house, 8)
    assert look(house, 8, 2) is None
    assert look(house, 8, 3) == 8


@pytest.mark.parametrize(
    ("streaming", "running", "waiting", "occupancy"),
    [
        (8, 8, 0, 0.2),  # nobody waits
        (7, 8, 2, 0.2),  # somebody is at a prefill, or is a stranger
        (8, 8, 2, 0.95),  # they may wait for room
        (8, 0, 2, 0.2),
    ],
)
def test_what_may_have_another_reason_tells_nothing(house, streaming, running, waiting, occupancy):
    streams(house, streaming)
    for _ in range(4):
        assert look(house, running, waiting, occupancy) is None


def test_who_has_just_come_may_wait_for_the_next_step(house):
    forecast = streams(house, 8)
    forecast.prefills["w"].sent_s = house.now - 0.1
    look(house, 8, 1)
    assert look(house, 8, 1) is None
    forecast.prefills.clear()  # a stranger's: nobody knows since when
    look(house, 8, 1)
    assert look(house, 8, 1) is None


def test_looks_that_differ_tell_nothing(house):
    streams(house, 8)
    assert look(house, 8, 2) is None
    assert look(house, 7, 2) is None
    assert look(house, 8, 2) is None


def test_more_that_run_than_were_thought_possible_end_the_belief(house):
    streams(house, 8)
    look(house, 8, 2)
    assert look(house, 8, 2) == 8
    assert look(house, 7, 0) == 8
    assert look(house, 9, 0) is None


def test_a_replica_that_comes_back_may_be_another_one(house):
    streams(house, 8)
    look(house, 8, 2)
    assert look(house, 8, 2) == 8
    house.down("a")
    house.up("a")
    assert house.fleet.replicas["a"].forecast.seats is None


def test_where_kv_comes_from_elsewhere_waiting_has_another_reason(house):
    streams(house, 8)
    house.fleet.replicas["a"].transfer = Transfer(1e-6)
    look(house, 8, 2)
    assert look(house, 8, 2) is None


def test_a_live_engine_with_two_seats_is_found_out(house):
    sent = []
    for number in range(4):
        facts = RequestFacts(model="m", streamed=True, prompt_tokens=100)
        request = Request(f"q{number}", facts, house.now)
        sent += house.dispatcher.request_arrived(request, house.now)
    for action in sent[:2]:
        house.dispatcher.headers_received(action.attempt, 200, house.now)
        house.dispatcher.progress(action.attempt, 1, house.now)
    house.now += 1.0
    look(house, 2, 2)
    assert look(house, 2, 2) == 2
