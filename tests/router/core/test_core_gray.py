"""Gray failure, with time moved by hand and speeds made up."""

from __future__ import annotations

from random import Random

import pytest

from policies.speed import Speed
from router.core.gray import GraySettings, GrayWatch, standard_prefill_s, standard_step_s
from router.core.pace_meter import PaceMeter


class Fleet:
    """Replicas of different speed that are looked at once a second."""

    def __init__(self, *steps_s, noise=0.1, settings=None):
        self.steps_s = dict(zip("abcdefgh", steps_s, strict=False))
        self.factors = dict.fromkeys(self.steps_s, 1.0)
        self.watch = GrayWatch(settings or GraySettings())
        self.rng = Random(1)
        self.noise = noise
        self.now = 1000.0

    def seconds(self, count, *, measure="step"):
        """Let time pass; returns what was found, with the second in which it was."""
        found = []
        for second in range(1, count + 1):
            self.now += 1.0
            for name, step_s in self.steps_s.items():
                value_s = step_s * self.factors[name] * self.rng.lognormvariate(0, self.noise)
                step = value_s if measure == "step" else None
                prefill = value_s if measure == "prefill" else None
                if measure == "prefill, steps as ever":
                    step, prefill = step_s, value_s
                self.watch.observe(name, self.now, step_s=step, prefill_s=prefill)
            found += [(second, slowness) for slowness in self.watch.look()]
        return found


def test_a_steady_fleet_of_unlike_replicas_is_well():
    fleet = Fleet(0.01, 0.02, 0.05, 0.2, noise=0.3)
    assert fleet.seconds(2000) == []


@pytest.mark.parametrize("measure", ["step", "prefill"])
def test_one_that_turns_five_times_slower_is_found_within_five_seconds(measure):
    fleet = Fleet(0.02, 0.02, 0.04, 0.02)
    fleet.seconds(60, measure=measure)
    fleet.factors["c"] = 5.0
    found = fleet.seconds(5, measure=measure)
    assert {slowness.replica for _, slowness in found} == {"c"}
    assert found[0][0] <= 4
    assert found[-1][1].weight == pytest.approx(1 / 5, rel=0.25)
    assert found[-1][1].eject
    what = "a decode step" if measure == "step" else "a prefill"
    assert found[-1][1].detail.startswith(what)


def test_a_moment_of_slowness_ejects_nobody():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60)
    fleet.factors["a"] = 20.0
    found = [slowness for _, slowness in fleet.seconds(3)]
    assert found
    assert not any(slowness.eject for slowness in found)
    fleet.seconds(1)
    assert fleet.seconds(1)[0][1].eject


def test_first_tokens_that_wait_for_a_place_in_the_batch_eject_nobody():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60, measure="prefill, steps as ever")
    fleet.factors["a"] = 5.0
    found = [slowness for _, slowness in fleet.seconds(30, measure="prefill, steps as ever")]
    assert found[-1].detail.startswith("a prefill")
    assert found[-1].weight == pytest.approx(1 / 5, rel=0.25)
    assert not any(slowness.eject for slowness in found)


def test_one_that_is_three_times_slower_gets_less_and_stays():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60)
    fleet.factors["a"] = 2.8
    found = [slowness for _, slowness in fleet.seconds(30)]
    assert found
    assert not any(slowness.eject for slowness in found)
    assert found[-1].weight == pytest.approx(1 / 2.8, rel=0.25)


def test_one_that_recovers_is_told_of_once():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60)
    fleet.factors["a"] = 5.0
    fleet.seconds(30)
    fleet.factors["a"] = 1.0
    found = [slowness for _, slowness in fleet.seconds(60)]
    well = [slowness for slowness in found if slowness.weight == 1.0]
    assert found[-1:] == well
    assert (well[0].replica, well[0].eject) == ("a", False)


def test_when_all_turn_slower_nobody_is_at_fault():
    fleet = Fleet(0.02, 0.02, 0.05)
    fleet.seconds(60)
    for name in fleet.factors:
        fleet.factors[name] = 5.0
    assert fleet.seconds(120) == []


def test_when_all_others_turn_faster_nobody_is_at_fault():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60)
    fleet.factors["b"] = fleet.factors["c"] = 0.2
    assert fleet.seconds(60) == []


def test_without_peers_nobody_is_at_fault():
    fleet = Fleet(0.02)
    fleet.seconds(60)
    fleet.factors["a"] = 9.0
    assert fleet.seconds(60) == []


def test_without_a_history_nobody_is_at_fault():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(5)
    fleet.factors["a"] = 9.0
    assert fleet.seconds(10) == []


def test_a_single_wild_look_is_nobodys_fault():
    fleet = Fleet(0.02, 0.02, 0.02, noise=0.0)
    fleet.seconds(60)
    fleet.factors["a"] = 1e9
    fleet.seconds(1)
    fleet.factors["a"] = 1.0
    found = fleet.seconds(60)
    assert len(found) <= 5
    assert found == [] or found[-1][1].weight == 1.0


def test_a_slow_replica_does_not_become_its_own_yardstick_soon():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60)
    fleet.factors["a"] = 5.0
    found = fleet.seconds(300)
    assert found[-1][1].eject


def test_a_replica_that_restarts_has_a_new_history():
    fleet = Fleet(0.02, 0.02, 0.02)
    fleet.seconds(60)
    fleet.watch.forget("a")
    fleet.watch.forget("never seen")
    fleet.factors["a"] = 5.0
    assert fleet.seconds(120) == []


def test_a_factor_is_brought_to_the_standard_load():
    speed = Speed(step_s=0.01, stream_s=0.001, context_s=0.0)
    assert standard_step_s(speed, 2.0) == pytest.approx(2 * 0.026)
    speed = Speed(prefill_s=0.1, token_s=0.001, pair_s=0.0)
    assert standard_prefill_s(speed, 0.5) == pytest.approx(0.5 * 2.148)


def test_steps_are_measured_against_what_was_expected():
    meter = PaceMeter(10.0)
    meter.step_slowness(4, 0.02, 11.0)
    meter.streamed(4 * 50)
    assert meter.step_slowness(4, 0.02, 12.0) == pytest.approx(1.0)
    meter.streamed(4 * 10)
    assert meter.step_slowness(4, 0.02, 13.0) == pytest.approx(5.0)


def test_a_span_without_tokens_goes_on_until_some_come():
    meter = PaceMeter(10.0)
    meter.step_slowness(1, 0.1, 10.0)
    assert meter.step_slowness(1, 0.1, 11.0) is None
    meter.streamed(8)
    assert meter.step_slowness(1, 0.1, 14.0) == pytest.approx(5.0)


def test_time_in_prefills_is_no_slowness():
    meter = PaceMeter(10.0)
    meter.step_slowness(2, 0.02, 10.0)
    meter.streamed(2 * 20)
    meter.first_token(0.7, 0.7, 0.6)
    assert meter.step_slowness(2, 0.02, 11.0) == pytest.approx(1.0)
    assert meter.prefill_slowness() == pytest.approx(1.0)
    assert meter.prefill_slowness() is None


def test_more_prefill_than_time_leaves_some_time_for_streams():
    meter = PaceMeter(10.0)
    meter.step_slowness(1, 0.02, 10.0)
    meter.streamed(10)
    meter.first_token(9.0, 9.0, 9.0)
    assert meter.step_slowness(1, 0.02, 11.0) == pytest.approx(1.0)


def test_a_long_prefill_under_way_is_no_slow_step():
    meter = PaceMeter(10.0)
    meter.step_slowness(1, 0.02, 10.0)
    meter.streamed(25)
    # A prefill of 8 s began at 10.5: until it should be over there is a token now and then.
    assert meter.step_slowness(1, 0.02, 11.0, (10.5, 18.5)) == pytest.approx(1.0)
    for now in range(12, 19):
        meter.streamed(2)
        assert meter.step_slowness(1, 0.02, float(now), (10.5, 18.9)) is None
    meter.streamed(2)  # what lasts longer is slow all the same
    assert meter.step_slowness(1, 0.02, 20.0, (10.5, 18.9)) > 4


def test_a_short_prefill_under_way_takes_its_part_of_the_span():
    meter = PaceMeter(10.0)
    meter.step_slowness(1, 0.02, 10.0)
    meter.streamed(30)
    assert meter.step_slowness(1, 0.02, 11.0, (10.6, 11.6)) == pytest.approx(1.0)


def test_without_streams_there_are_no_steps():
    meter = PaceMeter(10.0)
    meter.streamed(5)
    assert meter.step_slowness(0, 0.02, 11.0) is None
    assert meter.step_slowness(3, 0.02, 11.0) is None


def test_first_tokens_are_averaged_as_ratios():
    meter = PaceMeter(0.0)
    meter.first_token(4.0, 1.0, 0.1)
    meter.first_token(0.25, 1.0, 0.1)
    assert meter.prefill_slowness() == pytest.approx(1.0)
    meter.first_token(0.0, 1.0, 0.1)
    assert meter.prefill_slowness() == pytest.approx(0.0183, rel=0.01)
