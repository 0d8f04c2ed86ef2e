"""The least cost, and when a request waits for a better moment."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.forecast import Clock, Forecast, Prefill, Stream
from policies.least_estimated_completion import ADAPTER_LOAD_S, LeastEstimatedCompletion
from policies.speed import Speed
from policies.survival import Survival
from policies.testing import View

NOW = 100.0
LAW = Survival()


def replica(name, *, factor=1.0, prefills=(), streams=(), kv_tokens=400_000, **seen):
    """One with ``prefills`` of so many tokens and ``streams`` of (age_s, tokens, context)."""
    speed = Speed(prefill_factor=factor, step_factor=factor)
    forecast = Forecast(Clock(NOW), speed)
    for key, tokens in enumerate(prefills):
        time_s = speed.prefill_time_s(tokens)
        forecast.prefills[key] = Prefill(NOW, tokens, 0, time_s, 0.06, LAW)
        forecast.prefill_s += time_s
        forecast.prefill_tokens += tokens
        forecast.context_tokens += tokens
    for key, (age_s, tokens, context) in enumerate(streams):
        stream = Stream(NOW - age_s, NOW, tokens, context, 0.06, LAW)
        forecast.streams[-1 - key] = forecast.tight[-1 - key] = stream
        forecast.context_tokens += context
    return View(name, forecast=forecast, kv_tokens=kv_tokens, **seen)


def request(tokens=2000, *, ttft_s=2.0, waited_s=0.0, cached=None, model=None):
    return RequestFacts(
        model=model,
        prompt_tokens=tokens,
        ttft_slo_s=ttft_s,
        tpot_slo_s=0.06,
        waited_s=waited_s,
        expected_output_tokens=200.0,
        cached=cached or {},
    )


def choose(request, *replicas, **options):
    return LeastEstimatedCompletion(**options).choose(request, replicas, Random(0))


late = (1.1, 20, 500)
"""A stream that has nearly used up its budget of 19 x 60 ms."""


def seated(name, seats, count, prefills=()):
    made = replica(name, streams=[(5.0, 200, 500)] * count, prefills=prefills)
    made.forecast.seats = seats
    return made


def test_where_somebody_waits_for_a_seat_already_nobody_else_is_sent():
    full = seated("a", 8, 8, prefills=(100,))
    choice = choose(request(100), full)
    assert (choice.hold, choice.reason) == (True, "seats")
    assert not choose(request(100), seated("a", 8, 8)).hold  # the next seat is not left empty
    assert not choose(request(100), seated("a", None, 80)).hold


def test_a_free_seat_wins_over_one_to_be_waited_for():
    choice = choose(request(100), seated("a", 4, 4), seated("b", 8, 6))
    assert choice.replica.name == "b"
    taken = next(e for e in choice.estimates if e.replica == "a")
    assert taken.queue_s > 0.1


def test_with_all_seats_taken_what_waits_is_not_weighed_again():
    full = seated("a", 8, 8, prefills=(100,))
    choice = choose(request(100, waited_s=0.5), full)
    assert (choice.hold, choice.reason) == (True, "no_room")


def test_of_idle_ones_the_fastest_wins():
    assert choose(request(), replica("a", factor=2.0), replica("b")).replica.name == "b"


def test_the_shortest_queue_wins():
    choice = choose(request(), replica("a", prefills=[6000]), replica("b", prefills=[3000]))
    assert (choice.replica.name, choice.reason, choice.hold) == ("b", "least_cost", False)
    assert choice.ttft_s == pytest.approx(
        Speed().prefill_time_s(3000) + Speed().prefill_time_s(2000)
    )


def test_only_uncached_tokens_cost():
    busy = replica("a", prefills=[3000])
    assert choose(request(8000), busy, replica("b")).replica is not busy
    assert choose(request(8000, cached={"a": 7000}), busy, replica("b")).replica is busy
    assert (
        choose(request(8000, cached={"a": 7000}), busy, replica("b"), prefix=False).replica
        is not busy
    )


def test_streams_at_their_limit_are_spared():
    tight, queued = replica("a", streams=[late] * 4), replica("b", prefills=[3000])
    assert choose(request(8000), tight, queued).replica is queued
    assert choose(request(8000), tight, queued, harm=0.0).replica is tight


def test_a_cache_that_would_overflow_at_its_peak_is_avoided():
    streams = [(0.5, 20, 9000)] * 10
    full, queued = replica("a", streams=streams, kv_tokens=100_000), replica("b", prefills=[500])
    assert choose(request(8000), full, queued).replica is queued
    assert choose(request(8000), full, queued, peak=False, harm=0.0).replica is full


def test_who_has_loaded_the_adapter_is_as_much_nearer():
    loaded = {"adapters": frozenset({"lora"})}
    without = replica("b", adapters=frozenset())
    asked = request(2000, model="lora")
    short = replica("a", prefills=[2000], **loaded)
    assert Speed().prefill_time_s(2000) < ADAPTER_LOAD_S
    assert choose(asked, short, without).replica is short
    long = replica("a", prefills=[8000] * 2, **loaded)
    assert choose(asked, long, without).replica is without


def test_nothing_waits_at_an_idle_replica():
    assert not choose(request(100_000, ttft_s=0.1), replica("a")).hold


def test_a_request_waits_while_all_would_only_queue_it():
    full = [replica(name, prefills=[8000, 8000]) for name in "ab"]
    choice = choose(request(), *full)
    assert (choice.hold, choice.reason) == (True, "queue")
    assert not choose(request(), *full, wait=False).hold
    again = choose(request(waited_s=0.5), *full)
    assert (again.hold, again.reason) == (True, "no_room")
    assert not choose(request(waited_s=0.5), *full, replica("c")).hold


def test_a_request_waits_rather_than_do_harm_while_it_has_time():
    # steps of 50 ms leave 10 ms each to earn back what a prefill of 1.5 s takes
    tight = replica("a", streams=[late] * 4, factor=5.0)
    choice = choose(request(8000, ttft_s=4.0), tight)
    assert (choice.hold, choice.reason) == (True, "harm")
    last_s = 4.0 - Speed(prefill_factor=5.0).prefill_time_s(8000)
    assert not choose(request(8000, ttft_s=4.0, waited_s=last_s), tight).hold


def test_a_request_waits_for_room_in_the_cache():
    full = replica("a", streams=[(0.5, 20, 9000)] * 10, kv_tokens=95_000)
    choice = choose(request(8000), full)
    assert (choice.hold, choice.reason) == (True, "kv_full")


fleets = st.lists(
    st.tuples(
        st.floats(0.5, 4.0),
        st.lists(st.integers(1, 20_000), max_size=3),
        st.lists(
            st.tuples(st.floats(0, 20), st.integers(1, 400), st.integers(10, 20_000)), max_size=6
        ),
        st.sampled_from([None, 50_000, 400_000]),
    ),
    min_size=1,
    max_size=10,
)


@given(
    fleet=fleets,
    tokens=st.integers(1, 40_000),
    cached=st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 40_000)),
    waited_s=st.floats(0, 3),
    pressure=st.floats(0, 1),
)
def test_pruning_never_changes_who_is_best(fleet, tokens, cached, waited_s, pressure):
    def made():
        return [
            replica(name, factor=factor, prefills=prefills, streams=streams, kv_tokens=kv_tokens)
            for name, (factor, prefills, streams, kv_tokens) in zip(
                "abcdefghij", fleet, strict=False
            )
        ]

    policy = LeastEstimatedCompletion(wait=False, pressure=pressure)
    asked, whole = request(tokens, waited_s=waited_s, cached=cached), made()
    own, busy = policy._own_costs(asked, whole)
    share = pressure * busy / len(whole)
    costs = [
        policy._complete(asked, whole[c[1]], c, share, inf)[0] for c in sorted(own, key=_place)
    ]
    choice = policy.choose(asked, made(), Random(0))
    chosen = "abcdefghij".index(choice.replica.name)
    assert costs[chosen] == pytest.approx(min(costs), rel=1e-9, abs=1e-9)
    assert choice.estimates[0].replica == choice.replica.name
    assert choice.estimates[0].cost == pytest.approx(min(costs), rel=1e-9, abs=1e-9)


def _place(cost):
    return cost[1]
