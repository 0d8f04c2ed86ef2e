"""SMetric: staying, moving, and when a move is worth it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.forecast import Clock, Forecast, Speed
from policies.smetric import SMetric
from policies.testing import View


def rate(tokens_per_s):
    """A forecast in which a prefill takes nothing but this."""
    speed = Speed(prefill_s=0.0, token_s=1 / tokens_per_s, pair_s=0.0)
    return Forecast(clock=Clock(), speed=speed)


def busy(name, in_flight=0, queued=0, *, speed=None, last=0):
    return View(
        name,
        in_flight=in_flight,
        in_flight_prefill_tokens=queued,
        forecast=None if speed is None else rate(speed),
        last_dispatch=last,
    )


def chosen(*replicas, prompt=1000, cached=None, **options):
    request = RequestFacts(prompt_tokens=prompt, cached=cached or {})
    choice = SMetric(**options).choose(request, replicas, Random(0))
    return choice.replica.name, choice.reason


def test_a_first_turn_goes_to_the_least_work_times_requests():
    # 1000 x 3 against (400 + 1000) x 2 and (700 + 1000) x 2.
    assert chosen(busy("a", 3), busy("b", 2, 400)) == ("b", "balanced")
    assert chosen(busy("a", 3), busy("b", 2, 700)) == ("a", "balanced")


def test_an_idle_replica_wins_whatever_its_cache():
    # As in the source: no request in flight makes the product zero.
    assert chosen(busy("a", 1), busy("b", 0), cached={"a": 400}) == ("b", "moved")


def test_a_follow_up_stays_despite_the_load():
    assert chosen(busy("a", 9, 100), busy("b"), cached={"a": 800}) == ("a", "home")


def test_too_little_cached_is_no_home():
    assert chosen(busy("a", 9), busy("b"), cached={"a": 500}) == ("b", "moved")
    assert chosen(busy("a", 9), busy("b"), cached={"a": 501}) == ("a", "home")
    assert chosen(busy("a", 9), busy("b"), cached={"a": 300}, hit_ratio=0.2) == ("a", "home")


def test_a_session_moves_only_where_somebody_else_is_in_time():
    # Limit: 1 s + 0.0625 s for 1000 tokens. At home 900 + 200 tokens wait, 1100 tokens a second.
    slow_home = busy("a", 1, 900, speed=1000)
    assert chosen(slow_home, busy("b", 1, speed=1000), cached={"a": 800}) == ("b", "moved")
    also_late = busy("b", 1, 500, speed=1000)
    assert chosen(slow_home, also_late, cached={"a": 800}) == ("a", "home_nobody_in_time")
    in_time_home = busy("a", 1, 862, speed=1000)
    assert chosen(in_time_home, busy("b", 1, speed=1000), cached={"a": 800}) == ("a", "home")


def test_the_limit_follows_its_options():
    home, other = busy("a", 1, 300, speed=1000), busy("b", 1, speed=100_000)
    cached = {"a": 800}
    assert chosen(home, other, cached=cached)[1] == "home"
    assert chosen(home, other, cached=cached, slack=0.4)[1] == "moved"
    assert chosen(home, other, cached=cached, ttft_slo_s=0.4)[1] == "moved"
    assert chosen(home, other, cached=cached, ttft_slo_s=0.4, ttft_slo_s_per_1k=0.2)[1] == "home"


def test_an_unknown_speed_counts_as_in_time():
    assert chosen(busy("a", 1, 10**6), busy("b"), cached={"a": 800}) == ("a", "home")
    late_home = busy("a", 1, 10**6, speed=1000)
    assert chosen(late_home, busy("b"), cached={"a": 800}) == ("b", "moved")


def test_of_two_homes_the_one_with_less_work_wins():
    assert chosen(busy("a", 1, 700), busy("b", 1, 300), cached={"a": 800, "b": 800})[0] == "b"


def test_ties_go_in_turn():
    assert chosen(busy("a", last=8), busy("b", last=3), busy("c", last=5))[0] == "b"


@pytest.mark.parametrize("name", ["hit_ratio", "slack", "ttft_slo_s", "ttft_slo_s_per_1k"])
def test_senseless_options_are_refused(name):
    for value in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=name):
            SMetric(**{name: value})


loads = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 10**5), st.integers(0, 1000)),
    min_size=1,
    max_size=8,
)


@given(loads)
def test_without_any_cache_it_is_work_times_requests(loads):
    replicas = [busy(f"r{i}", n, queued) for i, (n, queued, _) in enumerate(loads)]
    best, _ = chosen(*replicas)
    products = {r.name: (r.in_flight_prefill_tokens + 1000) * r.in_flight for r in replicas}
    assert products[best] == min(products.values())


@given(loads)
def test_a_faster_home_is_never_left(loads):
    replicas = [busy(f"r{i}", n, q, speed=1000) for i, (n, q, _) in enumerate(loads)]
    cached = {f"r{i}": c for i, (_, _, c) in enumerate(loads)}
    before, reason = chosen(*replicas, cached=cached)
    if reason == "home":
        faster = [replace(r, forecast=rate(2000)) if r.name == before else r for r in replicas]
        assert chosen(*faster, cached=cached) == (before, "home")
