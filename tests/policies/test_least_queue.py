"""Least queue: the engines' own queues, and what stands for them where they are unknown."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.least_queue import LeastQueue
from policies.testing import View


def polled(name, waiting, running=0, *, in_flight=0, unseen=0, last=0):
    return View(
        name,
        waiting=waiting,
        running=running,
        in_flight=in_flight,
        unseen=unseen,
        last_dispatch=last,
    )


def chosen(*replicas):
    choice = LeastQueue().choose(RequestFacts(), replicas, Random(0))
    return choice.replica.name, choice.reason


def test_the_shortest_queue_wins_whoever_filled_it():
    assert chosen(polled("a", 3, in_flight=1), polled("b", 2, in_flight=90)) == (
        "b",
        "shortest_queue",
    )


def test_equal_queues_go_to_the_smaller_batch_and_then_in_turn():
    assert chosen(polled("a", 0, 9), polled("b", 0, 4))[0] == "b"
    assert chosen(polled("a", 0, 4, last=6), polled("b", 0, 4, last=2))[0] == "b"


def test_attempts_that_the_poll_cannot_know_of_count_as_waiting():
    assert chosen(polled("a", 0, unseen=2, in_flight=2), polled("b", 1))[0] == "b"
    ended = polled("a", 0, unseen=2, in_flight=0)
    assert chosen(ended, polled("b", 1))[0] == "a"


def test_a_burst_between_two_polls_is_spread():
    sent = {"a": 0, "b": 0, "c": 0}
    for number in range(1, 31):
        views = [polled(name, 0, unseen=n, in_flight=n, last=n) for name, n in sent.items()]
        sent[chosen(*views)[0]] += 1
        assert max(sent.values()) - min(sent.values()) <= 1, number
    assert sent == {"a": 10, "b": 10, "c": 10}


def test_own_attempts_stand_for_what_is_not_published():
    a = View("a", in_flight=9, in_flight_prefills=1)
    b = View("b", in_flight=2, in_flight_prefills=2)
    assert chosen(a, b) == ("a", "own_count")
    assert chosen(a, polled("b", 2)) == ("a", "own_count")
    assert chosen(a, polled("b", 0)) == ("b", "shortest_queue")
    same_queue = View("c", in_flight=4, in_flight_prefills=1)
    assert chosen(a, same_queue)[0] == "c"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=10))
def test_no_queue_is_shorter_than_the_chosen_one(loads):
    replicas = [polled(f"r{i}", waiting, running) for i, (waiting, running) in enumerate(loads)]
    name, _ = chosen(*replicas)
    best = loads[int(name[1:])]
    assert best == min(loads)
