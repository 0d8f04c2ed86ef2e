"""How long a replica may be silent, with time moved by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.stall import Silence, StallSettings, StallWatch, Work, allowed_silence_s

SETTINGS = StallSettings()
REPORT_S = 16 * 0.02


def known(now=0.0, *, gap_s=0.0):
    """A replica that has been heard of often enough, last at ``now``."""
    silence = Silence(now - gap_s)
    for _ in range(SETTINGS.learned_reports - 1):
        silence.heard(now - gap_s)
    silence.heard(now)
    return silence


def allowed(silence=None, **work):
    return allowed_silence_s(silence or known(), Work(**work), SETTINGS)


def test_nothing_to_do_may_last_for_ever():
    assert allowed() is None
    assert StallWatch(SETTINGS).look(known(), Work(), 1e6) is None


def test_streams_are_judged_by_the_time_between_reports():
    assert allowed(streams=3, report_s=REPORT_S) == pytest.approx(3.0 + 1.6)


def test_prefills_beside_streams_may_block_them():
    assert allowed(streams=3, prefills=2, report_s=REPORT_S, prefill_s=6.0) == pytest.approx(16.6)


def test_with_prefills_only_more_is_allowed():
    assert allowed(prefills=2, prefill_s=1.5) == pytest.approx(10 + 3)


def test_unstreamed_answers_are_given_twice_the_time_that_the_longest_takes():
    assert allowed(unstreamed=4, prefill_s=1.0, answer_s=80.0) == pytest.approx(30 + 2 + 160)


def test_a_crowd_makes_more_allowed():
    assert allowed(streams=1, report_s=0.2, crowded=True) == pytest.approx(12 + 1)
    assert allowed(prefills=1, prefill_s=0.5, crowded=True) == pytest.approx(40 + 1)


def test_before_its_speed_is_known_a_replica_has_half_a_minute():
    silence = Silence(0.0)
    assert allowed(silence, streams=1, report_s=0.2) == 30.0
    for _ in range(SETTINGS.learned_reports):
        silence.heard(0.0)
    assert allowed(silence, streams=1, report_s=0.2) == pytest.approx(4.0)


def test_one_that_often_rests_is_known_for_it():
    silence = known(100.0, gap_s=5.0)
    assert allowed(silence, streams=1, report_s=0.2) == pytest.approx(10.0)
    silence.fade(160.0)
    assert allowed(silence, streams=1, report_s=0.2) == pytest.approx(5.0)
    silence.fade(220.0)
    assert allowed(silence, streams=1, report_s=0.2) == pytest.approx(4.0)


def test_what_is_asked_to_see_whether_it_is_well_must_say_something_soon():
    work = {"prefills": 1, "prefill_s": 0.5, "crowded": True}
    assert allowed(**work) == pytest.approx(SETTINGS.first_token_s * SETTINGS.crowded_factor + 1.0)
    assert allowed(**work, probing=True) == pytest.approx(SETTINGS.least_s + 1.0)
    assert allowed(Silence(0.0), **work, probing=True) == SETTINGS.unlearned_s


def test_nobody_may_be_silent_for_more_than_a_minute_with_streams():
    assert allowed(streams=1, report_s=100.0, prefill_s=100.0) == SETTINGS.most_s


def test_a_silent_replica_is_found_and_told_of():
    watch, silence = StallWatch(SETTINGS), known(100.0)
    work = Work(streams=2, prefills=1, report_s=REPORT_S, prefill_s=0.2)
    assert watch.look(silence, work, 105.0) is None
    stall = watch.look(silence, work, 105.1)
    assert stall.silent_s == pytest.approx(5.1)
    assert stall.allowed_s == pytest.approx(5.0)
    assert stall.detail == (
        "no token for 5.1 s with 2 streams, 1 prefills, 0 unstreamed; 5.0 s are allowed"
    )


def test_work_after_idleness_is_not_late_at_once():
    watch, silence = StallWatch(SETTINGS), known(100.0)
    silence.woken(900.0)
    assert watch.look(silence, Work(prefills=1), 905.0) is None
    assert silence.peak_s < 1.0


def test_what_the_router_slept_through_is_not_held_against_replicas():
    watch, silence = StallWatch(SETTINGS), known(100.0)
    work = Work(streams=1, report_s=REPORT_S)
    for quarter in range(9):
        watch.tick(98.0 + quarter / 4)
    watch.tick(140.0)
    assert watch.look(silence, work, 140.0) is None
    assert watch.look(silence, work, 144.5) is None
    assert watch.look(silence, work, 144.7) is not None


def test_the_first_tick_is_no_pause():
    watch, silence = StallWatch(SETTINGS), known(100.0)
    watch.tick(110.0)
    assert watch.look(silence, Work(streams=1, report_s=REPORT_S), 110.0) is not None


def test_a_single_stream_may_rest_much_longer():
    watch, silence = StallWatch(SETTINGS), known(100.0)
    work = Work(streams=5, report_s=REPORT_S)
    assert not watch.stuck(40.1, silence, work, 100.0)
    assert watch.stuck(39.9, silence, work, 100.0)
    slow = Work(streams=5, report_s=4.0)
    assert not watch.stuck(-129.0, silence, slow, 100.0)
    assert watch.stuck(-131.0, silence, slow, 100.0)
    assert not watch.stuck(-500.0, silence, Work(), 100.0)


@given(
    gaps=st.lists(st.floats(0, 50), max_size=30),
    counts=st.tuples(*[st.integers(0, 5)] * 3),
    times=st.tuples(*[st.floats(0, 1e5)] * 3),
    crowded=st.booleans(),
)
def test_silence_is_allowed_within_bounds_only(gaps, counts, times, crowded):
    streams, prefills, unstreamed = counts
    now = 1000.0
    silence = Silence(now)
    for gap_s in gaps:
        now += gap_s
        silence.heard(now)
    work = Work(
        streams=streams,
        prefills=prefills,
        unstreamed=unstreamed,
        report_s=times[0],
        prefill_s=times[1],
        answer_s=times[2],
        crowded=crowded,
    )
    watch = StallWatch(SETTINGS)
    assert watch.look(silence, work, now + SETTINGS.least_s) is None
    late = watch.look(silence, work, now + SETTINGS.most_s + 0.1)
    if streams or prefills or not unstreamed:
        assert (late is not None) == bool(streams or prefills)
    later = watch.look(silence, work, now + 1e6)
    assert (later is not None) == bool(streams or prefills or unstreamed)
