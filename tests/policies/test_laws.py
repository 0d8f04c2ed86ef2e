"""Every built-in policy keeps the laws, and the kit catches every kind of law-breaker."""

from __future__ import annotations

import random
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.base import Choice, RequestFacts, Role
from policies.cache_aware import CacheAware
from policies.dynamo_kv import DynamoKv
from policies.forecast import Clock, Forecast, Speed
from policies.least_estimated_completion import LeastEstimatedCompletion
from policies.least_kv import LeastKv
from policies.least_load import LeastLoad
from policies.least_queue import LeastQueue
from policies.least_requests import LeastRequests
from policies.llm_d import LlmD
from policies.lmetric import LMetric
from policies.power_of_two import PowerOfTwo
from policies.prefill_decode import PrefillDecode
from policies.prefix_aware import PrefixAware
from policies.random_choice import RandomChoice
from policies.round_robin import RoundRobin
from policies.session import Session
from policies.smetric import SMetric
from policies.testing import LawBroken, View, check, check_case, made_up_fleet, made_up_request
from policies.transfer import Transfer

BUILT_IN = [
    CacheAware,
    DynamoKv,
    LMetric,
    LeastEstimatedCompletion,
    LeastKv,
    LeastLoad,
    LeastQueue,
    LeastRequests,
    LlmD,
    PowerOfTwo,
    PrefillDecode,
    PrefixAware,
    RandomChoice,
    RoundRobin,
    SMetric,
    Session,
]
MAKERS = [
    *BUILT_IN,
    partial(CacheAware, cache_threshold=0.0, balance_abs_threshold=0, balance_rel_threshold=1.0),
    partial(DynamoKv, router_temperature=0.5, router_track_output_blocks=True),
    partial(PrefillDecode, split="always"),
    partial(PrefixAware, min_match_tokens=256),
    partial(SMetric, hit_ratio=0.0, slack=0.0),
    partial(Session, load_factor=1.0, least_bound=1),
]


@pytest.mark.parametrize("make", MAKERS)
def test_built_in_policies_keep_the_laws(make):
    check(make)


counts = st.integers(0, 10_000)
names = st.text(min_size=1, max_size=6)
forecasts = st.builds(
    Forecast,
    clock=st.builds(Clock),
    speed=st.builds(Speed, token_s=st.floats(1e-9, 1e-2), prefill_factor=st.floats(0.01, 100)),
    prefills=st.just({}),
    streams=st.just({}),
    tight=st.just({}),
)
views = st.builds(
    View,
    name=names,
    running=st.none() | counts,
    waiting=st.none() | counts,
    kv_occupancy=st.none() | st.floats(0, 1),
    in_flight=counts,
    in_flight_prompt_tokens=counts,
    in_flight_output_tokens=counts,
    unseen=counts,
    in_flight_prefills=counts,
    in_flight_prefill_tokens=counts,
    kv_tokens=st.none() | st.integers(1, 10_000),
    forecast=st.none() | forecasts,
    role=st.sampled_from(Role),
    serves_whole=st.booleans(),
    zone=st.sampled_from(["", "a", "b"]),
    transfer=st.none() | st.builds(Transfer, st.floats(1e-9, 1e-2)),
    last_dispatch=counts,
)
requests = st.builds(
    RequestFacts,
    model=st.none() | st.text(max_size=4),
    prompt_tokens=counts,
    max_output_tokens=st.none() | counts,
    session=st.none() | st.text(max_size=4),
    priority=st.integers(-5, 5),
    streamed=st.booleans(),
    choices=st.integers(1, 8),
    cached=st.dictionaries(names, counts),
)


@pytest.mark.parametrize("make", MAKERS)
@settings(max_examples=40)
@given(
    request=requests,
    replicas=st.lists(views, min_size=1, max_size=12, unique_by=lambda view: view.name),
    seed=st.integers(),
)
def test_built_in_policies_keep_the_laws_in_any_case(make, request, replicas, seed):
    check_case(make, make(), request, replicas, seed)


class Foreigner:
    def choose(self, request, replicas, rng):
        return Choice(View("elsewhere"), "foreign")


class Lender:
    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "split", prefill=View("elsewhere"))


class Self:
    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "split", prefill=replicas[0])


class Copier:
    def choose(self, request, replicas, rng):
        return Choice(View(replicas[0].name), "a look-alike is no candidate")


class Raiser:
    def choose(self, request, replicas, rng):
        return Choice(replicas[len(replicas) * request.choices], "out of range")


class Silent:
    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "")


class Bare:
    def choose(self, request, replicas, rng):
        return replicas[0]


class Gambler:
    def choose(self, request, replicas, rng):
        return Choice(random.choice(replicas), "module-wide chance")


class Counting:
    def __init__(self):
        self.turn = 0

    def choose(self, request, replicas, rng):
        self.turn += 1
        return Choice(replicas[self.turn % len(replicas)], "own counter")


class Learner:
    """Answers the same twice in a row, but another thing once it has seen a large fleet."""

    def __init__(self):
        self.largest = 0

    def choose(self, request, replicas, rng):
        self.largest = max(self.largest, len(replicas))
        return Choice(replicas[-1 if self.largest > len(replicas) else 0], "remembers")


class Writer:
    def choose(self, request, replicas, rng):
        replicas[0].in_flight += 1
        return Choice(replicas[0], "writes to what it sees")


class Sorter:
    def choose(self, request, replicas, rng):
        replicas.reverse()
        return Choice(replicas[0], "reorders the candidates")


class Forcer:
    def choose(self, request, replicas, rng):
        object.__setattr__(replicas[0], "in_flight", replicas[0].in_flight + 1)
        return Choice(replicas[0], "writes past the guard")


@pytest.mark.parametrize(
    ("make", "law"),
    [
        (Foreigner, "is no candidate"),
        (Copier, "is no candidate"),
        (Lender, "is no candidate"),
        (Self, "split a request between"),
        (Raiser, "it raised IndexError"),
        (Silent, "as its reason"),
        (Bare, "which is no Choice"),
        (Gambler, "answered"),
        (Counting, "asked twice with equal seeds"),
        (Writer, "it raised FrozenInstanceError"),
        (Sorter, "it raised AttributeError"),
        (Forcer, "changed what it was shown"),
    ],
)
def test_law_breakers_are_caught(make, law):
    with pytest.raises(LawBroken, match=law):
        check(make)


def test_a_policy_that_learns_is_caught():
    seasoned = Learner()
    large, small = made_up_fleet(Random(1), 8), made_up_fleet(Random(1), 3)
    check_case(Learner, seasoned, RequestFacts(), large)
    with pytest.raises(LawBroken, match="a new one answered"):
        check_case(Learner, seasoned, RequestFacts(), small)


def test_made_up_cases_follow_their_seed_and_cover_the_unknown():
    def cases(seed):
        rng = Random(seed)
        return [(made_up_request(rng), made_up_fleet(rng, 8)) for _ in range(40)]

    assert cases(1) == cases(1)
    assert cases(1) != cases(2)
    fleets = [replicas for _, replicas in cases(1)]
    unknown = [sum(view.kv_occupancy is None for view in replicas) for replicas in fleets]
    assert {0, 8} <= set(unknown)
    assert any(0 < count < 8 for count in unknown)
