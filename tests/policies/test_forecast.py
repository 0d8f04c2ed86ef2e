"""What a replica's load will cost whoever comes next, by hand and by brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.forecast import HORIZONS_TOKENS, MOST_KV_WAIT_S, Clock, Forecast, Prefill, Stream
from policies.speed import Speed
from policies.survival import BINS, Survival, bin_of


def plain(step_s=0.02):
    """0.1 ms a prompt token, and steps that are always the same."""
    return Speed(
        prefill_s=0.0,
        token_s=1e-4,
        pair_s=0.0,
        step_s=step_s,
        stream_s=0.0,
        context_s=0.0,
        steps_per_token=0.0,
    )


def law(tokens):
    """Answers that are all about so long."""
    ended = [0.0] * BINS
    ended[bin_of(tokens)] = 1e6
    survival = Survival()
    survival.learn(ended)
    return survival


def forecast(*, now=100.0, speed=None):
    return Forecast(Clock(now), speed or plain())


def queue(of, *prefills, tpot_s=0.06, survival=None):
    """Let prefills of (tokens, cached, sent_s) wait there."""
    for number, (tokens, cached, sent_s) in enumerate(prefills):
        time_s = of.speed.prefill_time_s(tokens, cached)
        of.prefills[number] = Prefill(
            sent_s, tokens, cached, time_s, tpot_s, survival or Survival()
        )
        of.prefill_s += time_s
        of.prefill_tokens += tokens
        of.context_tokens += tokens + cached
        of.waiting_tokens += tokens + cached


def stream(of, key, *, began_s, tokens, context, tpot_s=0.06, survival=None):
    made = Stream(began_s, of.clock.now_s, tokens, context, tpot_s, survival or Survival())
    of.streams[key] = of.tight[key] = made
    of.context_tokens += context
    return made


def test_nothing_ahead_takes_no_time():
    assert forecast().look() == 0.0


def test_the_queue_is_what_is_left_of_its_head_and_the_rest():
    of = forecast(now=100.0)
    queue(of, (1000, 0, 99.96), (2000, 0, 99.99))
    assert of.look() == pytest.approx(0.1 - 0.04 + 0.2)
    assert of.queue_tokens == pytest.approx(600 + 2000)


def test_a_head_that_is_overdue_is_as_good_as_done():
    of = forecast(now=100.0)
    queue(of, (1000, 0, 50.0), (2000, 0, 50.0))
    assert of.look() == pytest.approx(0.2)


def test_the_head_began_when_the_one_before_it_ended():
    of = forecast(now=100.0)
    of.prefilled_s = 99.98
    queue(of, (1000, 0, 90.0))
    assert of.look() == pytest.approx(0.08)


def test_strangers_that_wait_are_taken_to_be_as_long_as_ours():
    of = forecast(now=100.0)
    queue(of, (1000, 0, 100.0), (3000, 0, 100.0))
    of.foreign_waiting = 3
    assert of.look() == pytest.approx(0.4 + 3 * 0.2)


def test_a_stall_breaks_a_stream_without_budget():
    # 10 tokens in 9 x 60 ms: exactly on time, and nothing is earned back in the steps to come
    of = forecast(speed=plain(step_s=0.06))
    stream(of, "a", began_s=100.0 - 9 * 0.06, tokens=10, context=100, survival=law(500))
    assert of.harm(1.0, 10_000, 0.0) == pytest.approx(1.0, abs=0.05)


def test_a_stream_that_earns_it_back_in_its_life_is_not_broken():
    of = forecast()
    # each step leaves 40 ms: a stall of 0.94 s is earned back within 24 of its many tokens
    stream(of, "a", began_s=100.0 - 9 * 0.06, tokens=10, context=100, survival=law(100_000))
    assert of.harm(1.0, 10_000, 0.0) == pytest.approx(0.0, abs=0.02)


def test_a_stream_that_ends_before_it_has_earned_it_back_is_broken():
    of = forecast()
    stream(of, "a", began_s=100.0 - 9 * 0.06, tokens=10, context=100, survival=law(16))
    assert of.harm(1.0, 10_000, 0.0) > 0.9


def test_what_is_lost_already_cannot_be_broken():
    of = forecast()
    stream(of, "a", began_s=40.0, tokens=10, context=100, survival=law(16))
    assert of.harm(1.0, 10_000, 0.0) == pytest.approx(0.0, abs=0.02)


streams = st.lists(
    st.tuples(st.floats(0, 30), st.integers(1, 2000), st.integers(10, 30_000)), max_size=12
)


def busy(found, waiting):
    of = forecast(speed=Speed())
    for key, (age_s, tokens, context) in enumerate(found):
        stream(of, key, began_s=100.0 - age_s, tokens=tokens, context=context)
    queue(of, *waiting)
    of.look()
    return of


waiting = st.lists(
    st.tuples(st.integers(1, 30_000), st.integers(0, 30_000), st.floats(90, 100)), max_size=4
)


@given(
    found=streams,
    waiting=waiting,
    pressure=st.floats(0, 1.5),
    tokens=st.integers(1, 60_000),
)
def test_harm_is_never_negative_and_stops_counting_only_where_it_may(
    found, waiting, pressure, tokens
):
    prefill_s = Speed().prefill_time_s(tokens)
    whole = busy(found, waiting).harm(prefill_s, tokens, pressure)
    assert 0 <= whole <= len(found) + len(waiting) + 1e-9
    for share in (0.1, 0.5, 0.9):
        enough = share * whole
        part = busy(found, waiting).harm(prefill_s, tokens, pressure, enough)
        assert part > enough or part == pytest.approx(whole)


@given(found=streams, waiting=waiting, tokens=st.integers(1, 60_000))
def test_what_is_remembered_is_what_would_be_counted(found, waiting, tokens):
    of, prefill_s = busy(found, waiting), Speed().prefill_time_s(tokens)
    first = of.harm(prefill_s, tokens, 0.5, 0.01)
    again = of.harm(prefill_s, tokens, 0.5)
    assert again == pytest.approx(busy(found, waiting).harm(prefill_s, tokens, 0.5))
    assert first <= again + 1e-9


@given(found=streams, waiting=waiting)
def test_the_peak_is_no_less_than_the_present_and_no_more_than_the_bound(found, waiting):
    of = busy(found, waiting)
    peak = of.peak_tokens()
    assert of.context_tokens - 1e-6 <= peak <= of.most_peak_tokens() + 1e-6


@given(found=streams, waiting=waiting)
def test_the_peak_by_brute_force(found, waiting):
    of = busy(found, waiting)
    held = []
    for more in HORIZONS_TOKENS:
        lives = [(s.tokens, s.context_tokens, s.survival) for s in of.streams.values()]
        lives += [(0, p.new_tokens + p.cached_tokens, p.survival) for p in of.prefills.values()]
        held.append(
            sum((context + more) * (1 - law.ends_within(at, more)) for at, context, law in lives)
        )
    assert of.peak_tokens() == pytest.approx(max(held), rel=1e-6, abs=1e-3)


def test_kv_that_fits_is_not_waited_for_and_kv_that_never_will_is_told():
    of = forecast()
    stream(of, "a", began_s=99.0, tokens=10, context=9000, survival=law(1000))
    assert of.kv_wait_s(900, 10_000) == 0.0
    wait_s = of.kv_wait_s(2000, 10_000)
    # 9,000 tokens are given back over some 1,000 steps of 20 ms; 1,000 of them are lacking
    assert 1.0 < wait_s < 4.0
    assert forecast().kv_wait_s(20_000, 10_000) == MOST_KV_WAIT_S
