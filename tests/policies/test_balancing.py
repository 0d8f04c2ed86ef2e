"""Round robin, random, least requests, power of two: what each picks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.least_requests import LeastRequests
from policies.power_of_two import PowerOfTwo
from policies.random_choice import RandomChoice
from policies.round_robin import RoundRobin
from policies.testing import View

REQUEST = RequestFacts()


def fleet(*in_flight, last=None):
    last = last or [0] * len(in_flight)
    return [
        View(name=f"r{i}", in_flight=n, last_dispatch=d)
        for i, (n, d) in enumerate(zip(in_flight, last, strict=True))
    ]


def serve(policy, replicas, count, *, rng=None):
    """Send ``count`` requests that never end; returns whom each went to."""
    rng = rng or Random(1)
    replicas = list(replicas)
    names = []
    for number in range(1, count + 1):
        chosen = policy.choose(REQUEST, replicas, rng).replica
        place = replicas.index(chosen)
        replicas[place] = replace(chosen, in_flight=chosen.in_flight + 1, last_dispatch=number)
        names.append(chosen.name)
    return names


def test_round_robin_rotates_in_order():
    assert serve(RoundRobin(), fleet(0, 0, 0), 7) == ["r0", "r1", "r2", "r0", "r1", "r2", "r0"]


def test_round_robin_ignores_load():
    assert serve(RoundRobin(), fleet(90, 0, 50), 3) == ["r0", "r1", "r2"]


def test_round_robin_gives_a_newcomer_its_turn_and_then_rotates():
    replicas = fleet(0, 0, 0, last=[7, 8, 0])
    assert RoundRobin().choose(REQUEST, replicas, Random(0)).replica.name == "r2"
    assert RoundRobin().choose(REQUEST, replicas[:2], Random(0)).replica.name == "r0"


def test_random_is_uniform_and_follows_its_seed():
    replicas = fleet(50, 0, 0, 0)
    names = serve(RandomChoice(), replicas, 4000, rng=Random(3))
    shares = Counter(names)
    assert set(shares) == {"r0", "r1", "r2", "r3"}
    # Four standard deviations of a binomial with n = 4000, p = 1/4.
    assert all(abs(count - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5 for count in shares.values())
    assert names == serve(RandomChoice(), replicas, 4000, rng=Random(3))
    assert names != serve(RandomChoice(), replicas, 4000, rng=Random(4))


def test_least_requests_takes_the_shortest_line():
    assert LeastRequests().choose(REQUEST, fleet(3, 1, 2), Random(0)).replica.name == "r1"


def test_least_requests_breaks_ties_in_turn():
    tied = fleet(1, 1, 1, last=[9, 4, 7])
    assert LeastRequests().choose(REQUEST, tied, Random(0)).replica.name == "r1"


def test_least_requests_ignores_what_was_polled():
    replicas = [View("r0", running=90, waiting=9), View("r1", in_flight=1, running=0, waiting=0)]
    assert LeastRequests().choose(REQUEST, replicas, Random(0)).replica.name == "r0"


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 60))
def test_least_requests_never_widens_the_gap(in_flight, count):
    names = serve(LeastRequests(), fleet(*in_flight), count)
    after = Counter(names)
    loads = [n + after[f"r{i}"] for i, n in enumerate(in_flight)]
    assert max(loads) - min(loads) <= max(1, max(in_flight) - min(in_flight))


def test_power_of_two_takes_the_less_busy_of_any_two():
    # The busiest of all can only be drawn beside a less busy one, so it is never chosen.
    names = {
        PowerOfTwo().choose(REQUEST, fleet(5, 9, 5, 5), Random(seed)).replica.name
        for seed in range(200)
    }
    assert names == {"r0", "r2", "r3"}


def test_power_of_two_with_two_replicas_is_least_requests():
    for seed in range(50):
        assert PowerOfTwo().choose(REQUEST, fleet(2, 1), Random(seed)).replica.name == "r1"


def test_power_of_two_draws_every_pair_equally():
    # With loads 0 < 1 < 2 < 3 the winner of a pair is known: 3, 2, 1 and 0 pairs of six.
    rng = Random(11)
    wins = Counter(
        PowerOfTwo().choose(REQUEST, fleet(0, 1, 2, 3), rng).replica.name for _ in range(6000)
    )
    for name, pairs in (("r0", 3), ("r1", 2), ("r2", 1), ("r3", 0)):
        assert wins[name] == pytest.approx(1000 * pairs, abs=160)


def test_power_of_two_with_one_replica_has_no_choice():
    choice = PowerOfTwo().choose(REQUEST, fleet(8), Random(0))
    assert (choice.replica.name, choice.reason) == ("r0", "only")


def test_power_of_two_balances_far_better_than_random():
    def spread(policy):
        loads = Counter(serve(policy, fleet(*[0] * 16), 1600, rng=Random(5)))
        return max(loads.values()) - min(loads.values())

    assert spread(PowerOfTwo()) <= 6
    assert spread(RandomChoice()) > 15
