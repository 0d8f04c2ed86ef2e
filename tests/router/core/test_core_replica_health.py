"""The health of one replica, with time moved by hand."""

from __future__ import annotations

from random import Random

import pytest

from router.core.failure_window import BUCKETS, FailureWindow
from router.core.health import Cause, Health, HealthSettings
from router.core.outcome import Outcome, outcome_of_status
from router.core.replica_health import PANIC_WEIGHT, ReplicaHealth
from router.core.slow_start import SlowStart, SlowStartSettings

PLAIN = HealthSettings(eject_jitter=0.0)


def replica(settings=PLAIN, *, cold=False, up_s=0.0):
    health = ReplicaHealth("a", settings, Random(1), cold=cold)
    if up_s is not None:
        health.seen_up(up_s)
    return health


def ejected(now=10.0, settings=PLAIN):
    health = replica(settings)
    health.eject(Cause.STALL, "silent", now)
    return health


def half_open(now=10.0, settings=PLAIN):
    health = ejected(now - settings.eject_s, settings)
    health.tick(now)
    assert health.state is Health.HALF_OPEN
    return health


def warming(now=10.0, settings=PLAIN):
    health = half_open(now, settings)
    health.succeeded(now, now)
    assert health.state is Health.WARMING
    return health


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SUCCESS),
        (302, Outcome.SUCCESS),
        (400, Outcome.SUCCESS),
        (404, Outcome.SUCCESS),
        (413, Outcome.SUCCESS),
        (429, Outcome.BACK_PRESSURE),
        (499, Outcome.SUCCESS),
        (500, Outcome.FAILURE),
        (501, Outcome.SUCCESS),
        (502, Outcome.FAILURE),
        (503, Outcome.BACK_PRESSURE),
        (504, Outcome.FAILURE),
        (505, Outcome.SUCCESS),
        (599, Outcome.FAILURE),
    ],
)
def test_what_a_status_says_of_the_replica(status, outcome):
    assert outcome_of_status(status) is outcome


def test_a_replica_seen_first_is_ready_at_once_and_one_that_comes_back_is_not():
    health = replica(up_s=None)
    assert (health.state, health.reachable, health.detail) == (Health.DOWN, False, "not seen yet")
    change = health.seen_up(1.0)
    assert (change.before, change.after, change.cause) == (
        Health.DOWN,
        Health.READY,
        Cause.HEALTH_UP,
    )
    assert health.seen_up(2.0) is None
    change = health.seen_down("refused", 3.0)
    assert (change.replica, change.after, change.detail, change.at_s) == (
        "a",
        Health.DOWN,
        "refused",
        3.0,
    )
    assert health.seen_down("timed out", 4.0) is None
    assert health.detail == "timed out"
    assert health.seen_up(5.0).after is Health.HALF_OPEN


@pytest.mark.parametrize("down_first", [False, True])
def test_a_replica_that_joins_a_running_fleet_proves_itself(down_first):
    health = replica(cold=True, up_s=None)
    if down_first:
        health.seen_down("loading", 0.5)
    assert health.seen_up(1.0).after is Health.HALF_OPEN


def test_failures_in_a_row_are_cause_to_eject_and_a_success_between_is_not():
    health = replica()
    assert health.failed(1.0, 2.0) is None
    assert health.failed(1.0, 2.1) is None
    health.succeeded(1.0, 2.2)
    assert health.failed(1.0, 2.3) is None
    assert health.failed(1.0, 2.4) is None
    assert health.failed(1.0, 2.5) == (Cause.FAILURES_IN_A_ROW, "3 attempts in a row failed")


def test_half_of_the_attempts_failing_is_cause_to_eject():
    health = replica()
    for moment in range(4):
        health.succeeded(1.0, 2.0 + moment)
        assert health.failed(1.0, 2.5 + moment) is None
    health.succeeded(1.0, 8.0)
    assert health.failed(1.0, 9.0) == (
        Cause.FAILURE_SHARE,
        "5 of 10 attempts failed within 60 s",
    )


def test_failures_long_ago_do_not_count():
    window = FailureWindow(60.0)
    for _ in range(7):
        window.add(10.0, failed=True)
    window.add(30.0, failed=False)
    assert window.counts(59.0) == (8, 7)
    assert window.counts(70.0) == (1, 0)
    assert window.counts(70.0 + 60.0 * BUCKETS) == (0, 0)


def test_a_clock_that_begins_far_from_zero_finds_an_empty_window():
    window = FailureWindow(60.0)
    window.add(5e8, failed=True)
    assert window.counts(5e8) == (1, 1)


def test_an_ejection_ends_half_open_and_each_further_one_lasts_twice_as_long():
    health = replica()
    now = 10.0
    for span_s in (5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0):
        change = health.eject(Cause.GRAY, "slow", now)
        assert change.after is Health.EJECTED
        assert change.detail == f"slow; out for {span_s:.1f} s"
        assert health.tick(now + span_s - 0.01) is None
        now += span_s
        change = health.tick(now)
        assert (change.before, change.after) == (Health.EJECTED, Health.HALF_OPEN)
    assert health.ejected_total == 7


def test_ejections_are_spread_by_jitter():
    spans = set()
    for seed in range(50):
        health = ReplicaHealth("a", HealthSettings(), Random(seed))
        health.seen_up(0.0)
        health.eject(Cause.GRAY, "slow", 0.0)
        spans.add(health.ejected_until_s)
    assert len(spans) == 50
    assert min(spans) >= 3.75
    assert max(spans) <= 6.25
    assert max(spans) - min(spans) > 1.5


def test_time_in_service_forgives_ejections_one_by_one():
    health = replica()
    now = 0.0
    for _ in range(3):
        health.eject(Cause.GRAY, "slow", now)
        now = health.ejected_until_s
        health.tick(now)
        health.succeeded(now, now)
    assert health.ejections == 3
    health.tick(now + 59.0)
    assert health.ejections == 3
    for second in range(60, 200, 5):
        health.tick(now + second)
    assert health.ejections == 0
    assert health.ejected_total == 3


def test_a_health_endpoint_that_answers_ends_no_ejection():
    health = ejected()
    assert health.seen_up(11.0) is None
    assert health.state is Health.EJECTED


def test_an_ejected_replica_that_restarts_proves_itself_at_once():
    health = ejected()
    assert health.seen_down("refused", 11.0).after is Health.DOWN
    assert not health.stalled
    assert health.seen_up(12.0).after is Health.HALF_OPEN


def test_a_probe_that_succeeds_lets_the_replica_warm_up():
    health = half_open()
    health.probe_sent(11.0)
    change = health.succeeded(11.0, 12.0)
    assert (change.after, change.cause) == (Health.WARMING, Cause.PROBE_PASSED)
    assert not health.stalled


def test_a_probe_passes_with_its_first_tokens():
    health = half_open()
    assert health.streamed(11.0, 7, 12.0) is None
    assert health.streamed(11.0, 8, 12.0).after is Health.WARMING
    assert health.streamed(11.0, 16, 12.1) is None


def test_what_was_sent_before_the_ejection_proves_nothing():
    health = half_open(now=10.0)
    assert health.succeeded(9.0, 12.0) is None
    assert health.streamed(9.0, 800, 12.0) is None
    assert health.failed(9.0, 12.0) is None
    assert health.state is Health.HALF_OPEN


def test_a_hundred_streams_that_break_at_once_eject_once():
    health = replica()
    evidence = None
    for _ in range(100):
        found = health.failed(1.0, 5.0)
        if found is not None:
            evidence = evidence or found
            health.eject(*found, 5.0)
    assert evidence is not None
    assert health.ejections == 1


def test_a_probe_that_fails_is_cause_to_eject():
    health = half_open()
    assert health.failed(11.0, 12.0) == (Cause.PROBE_FAILED, "a live request failed")
    health.eject(Cause.PROBE_FAILED, "a live request failed", 12.0)
    assert health.ejected_until_s == 12.0 + 2 * PLAIN.eject_s


def test_a_silent_probe_has_failed():
    health = half_open()
    health.probe_sent(11.0)
    health.probe_sent(30.0)
    assert health.tick(40.9) is None
    change = health.tick(41.0)
    assert (change.after, change.cause) == (Health.EJECTED, Cause.PROBE_SILENT)
    assert health.stalled


def test_a_half_open_replica_waits_for_its_probe_as_long_as_it_takes():
    health = half_open()
    assert health.tick(10_000.0) is None
    assert health.probing


def test_a_probe_whose_client_left_makes_room_for_another():
    health = half_open()
    health.probe_sent(11.0)
    health.probe_abandoned(10.5)
    assert health.probe_sent_s == 11.0
    health.probe_abandoned(11.0)
    assert health.probe_sent_s is None


def test_what_made_no_token_counts_as_stalled_until_it_makes_one():
    health = half_open()
    assert health.stalled
    health.streamed(10.0, 8, 11.0)
    assert not health.stalled


def test_the_ramp_goes_by_time_and_ends():
    health = warming(now=10.0)
    assert health.limited
    assert health.weight(10.0) == pytest.approx(0.1)
    assert health.weight(20.0) == pytest.approx(0.5)
    assert health.tick(29.9) is None
    change = health.tick(30.0)
    assert (change.before, change.after, change.cause) == (
        Health.WARMING,
        Health.READY,
        Cause.WARMED_UP,
    )
    assert (health.weight(30.0), health.limited) == (1.0, False)


def test_the_ramp_goes_by_tokens_where_there_are_many():
    ramp = SlowStart(SlowStartSettings(), 0.0)
    ramp.sent(60_000)
    assert ramp.weight(1.0) == pytest.approx(0.6)
    ramp.sent(40_000)
    assert ramp.weight(1.0) == 1.0


def test_no_ramp_is_over_at_once():
    assert SlowStart(SlowStartSettings(warm_s=0.0), 5.0).weight(5.0) == 1.0
    assert SlowStart(SlowStartSettings(warm_tokens=0), 5.0).weight(5.0) == 1.0


def test_a_replica_that_fails_while_it_warms_is_ejected_and_warms_anew():
    health = warming(now=10.0)
    for _ in range(2):
        assert health.failed(12.0, 13.0) is None
    assert health.failed(12.0, 13.0) is not None
    health.eject(Cause.FAILURES_IN_A_ROW, "failed", 13.0)
    assert health.ramp is None
    health.tick(health.ejected_until_s)
    now = health.ejected_until_s
    health.succeeded(now, now)
    assert health.weight(now) == pytest.approx(0.1)


def test_a_slow_replica_weighs_less_and_ejection_forgets_that():
    health = replica()
    health.slowed(0.4)
    assert (health.weight(1.0), health.limited) == (0.4, True)
    health.slowed(0.0)
    assert health.weight(1.0) == 0.1
    health.slowed(7.0)
    assert (health.weight(1.0), health.limited) == (1.0, False)
    health.slowed(0.4)
    health.eject(Cause.GRAY, "slow", 2.0)
    health.tick(health.ejected_until_s)
    health.succeeded(health.ejected_until_s, health.ejected_until_s)
    assert health.weight(health.ejected_until_s + 10) == pytest.approx(0.5)


def test_what_is_out_of_service_weighs_little_when_it_is_used_in_panic():
    assert ejected().weight(11.0) == PANIC_WEIGHT


def test_a_busy_replica_is_busy_as_long_as_it_says_within_reason():
    health = replica()
    health.pushed_back(None, 10.0)
    assert health.busy_until_s == 10.5
    health.pushed_back(4.0, 10.0)
    assert health.busy_until_s == 14.0
    health.pushed_back(1.0, 10.0)
    assert health.busy_until_s == 14.0
    health.pushed_back(3600.0, 10.0)
    assert health.busy_until_s == 40.0
    health.pushed_back(-5.0, 50.0)
    assert health.busy_until_s == 50.0
    assert health.state is Health.READY


def test_a_half_open_replica_that_is_busy_is_asked_again_later():
    health = half_open()
    health.probe_sent(11.0)
    health.pushed_back(None, 12.0)
    assert (health.state, health.probe_sent_s) == (Health.HALF_OPEN, None)


def test_draining_hides_what_is_beneath_and_undraining_ramps():
    health = replica()
    change = health.drain("asked", 5.0)
    assert (change.before, change.after, change.cause) == (
        Health.READY,
        Health.DRAINING,
        Cause.DRAIN_ASKED,
    )
    assert (health.reachable, health.in_service, health.probing) == (False, False, False)
    assert health.drain("asked again", 6.0) is None
    change = health.undrain("asked", 7.0)
    assert (change.before, change.after) == (Health.DRAINING, Health.WARMING)
    assert health.undrain("asked", 8.0) is None


def test_failures_of_a_draining_replica_are_no_news():
    health = replica()
    health.drain("asked", 5.0)
    assert [health.failed(1.0, 6.0) for _ in range(9)] == [None] * 9


def test_a_back_off_ends_unseen_while_draining():
    health = ejected(now=10.0)
    assert health.drain("asked", 11.0).after is Health.DRAINING
    assert health.tick(20.0) is None
    assert health.undrain("asked", 21.0).after is Health.HALF_OPEN


def test_a_drain_ends_with_the_restart_that_it_was_for():
    health = replica()
    health.drain("asked", 5.0)
    assert health.seen_down("refused", 6.0).after is Health.DOWN
    change = health.seen_up(7.0)
    assert (change.after, health.draining) == (Health.HALF_OPEN, False)


def test_a_drain_may_outlast_a_restart():
    health = replica()
    health.drain("asked", 5.0, until_restart=False)
    health.seen_down("refused", 6.0)
    assert health.seen_up(7.0).after is Health.DRAINING
    assert not health.probing
    assert health.undrain("asked", 8.0).after is Health.HALF_OPEN


def test_people_are_shown_why():
    health = ejected(now=10.0)
    assert health.snapshot(12.0) == {
        "state": "ejected",
        "cause": "stall",
        "detail": "silent; out for 5.0 s",
        "since_s": 2.0,
        "weight": 0.0,
        "busy_s": 0.0,
        "back_in_s": 3.0,
        "ejected_total": 1,
    }
    assert "ejected" in repr(health)
    assert replica().snapshot(1.0)["weight"] == 1.0
