"""Least KV: polled occupancy and queue, corrected by what the poll cannot know."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.least_kv import LeastKv
from policies.least_requests import LeastRequests
from policies.testing import View


def chosen(*replicas):
    choice = LeastKv().choose(RequestFacts(), replicas, Random(0))
    return choice.replica.name, choice.reason


def polled(name, kv, *, running=10, waiting=0, in_flight=10, unseen=0, last=0):
    return View(
        name,
        running=running,
        waiting=waiting,
        kv_occupancy=kv,
        in_flight=in_flight,
        unseen=unseen,
        last_dispatch=last,
    )


def test_the_emptiest_cache_wins():
    assert chosen(polled("a", 0.5), polled("b", 0.2), polled("c", 0.9)) == ("b", "least_kv")


def test_few_long_requests_weigh_more_than_many_short_ones():
    long_ones = polled("a", 0.8, running=3, in_flight=3)
    short_ones = polled("b", 0.2, running=40, in_flight=40)
    assert chosen(long_ones, short_ones)[0] == "b"


def test_a_queue_counts_with_the_mean_share_of_a_request():
    # Ten running hold 0.5, so one holds 0.05; three waiting make 0.5 into 0.65, above 0.6.
    assert chosen(polled("a", 0.5, waiting=3), polled("b", 0.6, running=12))[0] == "b"
    assert chosen(polled("a", 0.5, waiting=1), polled("b", 0.6, running=12))[0] == "a"


def test_attempts_that_the_poll_cannot_know_of_count_as_queued():
    assert chosen(polled("a", 0.5, unseen=3), polled("b", 0.6, running=12))[0] == "b"


def test_unseen_attempts_that_ended_are_left_out():
    ended = polled("a", 0.5, unseen=9, in_flight=1)
    assert chosen(ended, polled("b", 0.6, running=12))[0] == "a"


def test_a_burst_between_two_polls_is_spread():
    unseen = {"a": 0, "b": 0, "c": 0}
    for number in range(1, 31):
        views = [
            polled(name, 0.3, unseen=n, in_flight=10 + n, last=number if n else 0)
            for name, n in unseen.items()
        ]
        unseen[chosen(*views)[0]] += 1
    assert unseen == {"a": 10, "b": 10, "c": 10}


def test_ties_go_in_turn():
    assert chosen(polled("a", 0.5, last=5), polled("b", 0.5, last=2), polled("c", 0.5, last=9)) == (
        "b",
        "least_kv",
    )


def test_an_idle_fleet_fills_by_own_count():
    # Nothing runs yet, so nobody can say what a request holds; any share orders them alike.
    idle = [
        polled("a", 0.0, running=0, in_flight=2, unseen=2),
        polled("b", 0.0, running=0, in_flight=1, unseen=1),
    ]
    assert chosen(*idle)[0] == "b"


def test_occupancy_without_a_running_count_still_orders():
    assert chosen(
        View("a", kv_occupancy=0.4, in_flight=4), View("b", kv_occupancy=0.3, in_flight=9)
    ) == ("b", "least_kv")


def test_a_mixed_fleet_is_measured_in_one_unit():
    # One request holds 0.05 on "a"; 12 own attempts on "b", which publishes nothing, make 0.6.
    known = polled("a", 0.5)
    assert chosen(known, View("b", in_flight=12))[0] == "a"
    assert chosen(known, View("b", in_flight=8)) == ("b", "own_count")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=10))
def test_a_fleet_that_publishes_nothing_gets_least_requests(loads):
    replicas = [View(f"r{i}", in_flight=n, last_dispatch=d) for i, (n, d) in enumerate(loads)]
    expected = LeastRequests().choose(RequestFacts(), replicas, Random(0)).replica
    assert LeastKv().choose(RequestFacts(), replicas, Random(0)).replica is expected
