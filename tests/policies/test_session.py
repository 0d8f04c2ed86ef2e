"""Session: loyalty, minimal remapping, and the bound on load."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.least_requests import LeastRequests
from policies.session import Session
from policies.testing import View

SESSIONS = [f"user-{number}" for number in range(2000)]


def fleet(count, in_flight=0):
    return [View(f"10.0.0.{number}:8000", in_flight=in_flight) for number in range(count)]


def choose(session, replicas, *, model="m", policy=None):
    facts = RequestFacts(model=model, session=session)
    return (policy or Session()).choose(facts, replicas, Random(0))


def homes(replicas):
    return {session: choose(session, replicas).replica.name for session in SESSIONS}


def test_a_session_stays_where_it_is_whatever_the_order_of_replicas():
    replicas = fleet(8)
    first = homes(replicas)
    assert first == homes(replicas[::-1])
    assert {choose(session, replicas).reason for session in SESSIONS[:50]} == {"session"}


def test_sessions_spread_evenly():
    shares = Counter(homes(fleet(8)).values())
    mean = len(SESSIONS) / 8
    # Four standard deviations of a binomial with p = 1/8.
    bound = 4 * math.sqrt(mean * 7 / 8)
    assert all(abs(shares[replica.name] - mean) < bound for replica in fleet(8))


def test_a_replica_that_joins_takes_its_share_and_moves_nothing_else():
    before, after = homes(fleet(8)), homes(fleet(9))
    moved = [session for session in SESSIONS if before[session] != after[session]]
    assert {after[session] for session in moved} == {"10.0.0.8:8000"}
    mean = len(SESSIONS) / 9
    assert abs(len(moved) - mean) < 4 * math.sqrt(mean * 8 / 9)


def test_a_replica_that_leaves_gives_up_only_its_own_sessions_and_to_all_others():
    replicas = fleet(8)
    before, after = homes(replicas), homes(replicas[1:])
    moved = [session for session in SESSIONS if before[session] != after[session]]
    gone = replicas[0].name
    assert moved == [session for session in SESSIONS if before[session] == gone]
    assert {after[session] for session in moved} == {replica.name for replica in replicas[1:]}


def test_a_crowded_home_is_passed_over_and_taken_again_when_it_empties():
    replicas = fleet(4, in_flight=8)
    home = choose("u", replicas).replica
    place = replicas.index(home)
    # 8 + 8 + 8 + 16 + 1 requests: the bound is ceil(1.25 x 41 / 4) = 13.
    crowded = [*replicas]
    crowded[place] = replace(home, in_flight=16)
    second = choose("u", crowded)
    assert second.reason == "session_overflow"
    assert second.replica.name != home.name
    assert choose("u", crowded).replica is second.replica
    assert choose("u", replicas).replica is home


def test_the_request_itself_counts_for_the_bound():
    # 10 + 22 requests and the new one: ceil(1.25 x 33 / 4) = 11, so an eleventh may come.
    replicas = fleet(4)
    place = replicas.index(choose("u", replicas).replica)
    loads = [8, 7, 7]
    loads.insert(place, 10)
    busy = [replace(replica, in_flight=n) for replica, n in zip(replicas, loads, strict=True)]
    assert choose("u", busy).reason == "session"
    busy[place] = replace(busy[place], in_flight=11)
    assert choose("u", busy).reason == "session_overflow"


def test_overflow_goes_where_the_session_would_go_without_its_home():
    replicas = fleet(4, in_flight=8)
    place = replicas.index(choose("u", replicas).replica)
    crowded = [*replicas]
    crowded[place] = replace(replicas[place], in_flight=99)
    alone = [replica for number, replica in enumerate(replicas) if number != place]
    assert choose("u", crowded).replica is choose("u", alone).replica


def test_few_requests_are_no_crowd():
    replicas = fleet(4)
    home = choose("u", replicas).replica
    place = replicas.index(home)
    replicas[place] = replace(home, in_flight=3)
    assert choose("u", replicas).reason == "session"
    replicas[place] = replace(home, in_flight=4)
    assert choose("u", replicas).reason == "session_overflow"
    assert choose("u", replicas, policy=Session(least_bound=5)).reason == "session"


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.floats(1, 4),
    st.integers(1, 8),
    st.text(),
)
def test_the_bound_always_holds(loads, load_factor, least_bound, session):
    replicas = [View(f"r{i}", in_flight=n) for i, n in enumerate(loads)]
    policy = Session(load_factor=load_factor, least_bound=least_bound)
    replica = choose(session, replicas, policy=policy).replica
    bound = math.ceil(load_factor * (sum(loads) + 1) / len(loads))
    assert replica.in_flight + 1 <= max(bound, least_bound)


def test_one_hot_session_cannot_fill_one_replica():
    loads = {view.name: 0 for view in fleet(4)}
    for _ in range(400):
        views = [View(name, in_flight=n) for name, n in loads.items()]
        loads[choose("hot", views).replica.name] += 1
    assert max(loads.values()) <= math.ceil(1.25 * 400 / 4)


def test_the_model_is_part_of_the_key():
    replicas = fleet(8)
    other = {session: choose(session, replicas, model="other").replica.name for session in SESSIONS}
    first = homes(replicas)
    same = sum(first[session] == other[session] for session in SESSIONS)
    assert same == pytest.approx(len(SESSIONS) / 8, abs=60)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=10))
def test_without_a_session_it_is_least_requests(loads):
    replicas = [View(f"r{i}", in_flight=n, last_dispatch=d) for i, (n, d) in enumerate(loads)]
    assert choose(None, replicas) == LeastRequests().choose(RequestFacts(), replicas, Random(0))


def test_lone_surrogates_and_the_empty_key_are_keys_like_any_other():
    for session in ("", "\udcff", "\ud800x"):
        assert choose(session, fleet(4)).reason == "session"


def test_other_processes_agree():
    program = (
        "from random import Random\n"
        "from policies.base import RequestFacts\n"
        "from policies.session import Session\n"
        "from policies.testing import View\n"
        "fleet = [View(f'10.0.0.{n}:8000') for n in range(8)]\n"
        "for n in range(50):\n"
        "    facts = RequestFacts(model='m', session=f'user-{n}')\n"
        "    print(Session().choose(facts, fleet, Random(0)).replica.name)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == [choose(s, fleet(8)).replica.name for s in SESSIONS[:50]]


@pytest.mark.parametrize("load_factor", [0.99, 0, -1, math.inf, math.nan])
def test_a_load_factor_that_cannot_hold_is_refused(load_factor):
    with pytest.raises(ValueError, match=r"load_factor is .*; allowed: a number of at least 1"):
        Session(load_factor=load_factor)


def test_a_least_bound_below_one_is_refused():
    with pytest.raises(ValueError, match="least_bound is 0; allowed: a whole number"):
        Session(least_bound=0)
