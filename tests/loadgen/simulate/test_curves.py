"""What pictures are made of."""

import pytest

from loadgen.simulate.curves import MOST_TIMES, LoadLog, busiest, distribution, merged
from router.core.replica import Replica


def test_a_distribution_runs_from_the_least_to_the_most():
    found = distribution(range(1000))
    assert (found[0], found[100], found[-1]) == (0, 499, 999)
    assert distribution([]) == []


def test_distributions_are_merged_quantile_by_quantile():
    assert merged([[1.0, 2.0], [3.0, 6.0]]) == [2.0, 4.0]


@pytest.mark.parametrize("notes", [1, MOST_TIMES, MOST_TIMES + 1, 5 * MOST_TIMES])
def test_long_curves_are_thinned_to_means(notes):
    log, replica = LoadLog(), Replica("r0", "http://r0")
    for number in range(notes):
        replica.in_flight = number
        log.note(number * 0.25, [replica], held=2)
    load = log.load()
    counts = load.in_flight["r0"]
    assert 0 < len(load.times_s) == len(counts) == len(load.held) <= MOST_TIMES
    assert set(load.held) == {2.0}
    step = notes // len(counts)
    assert counts[0] == pytest.approx((step - 1) / 2)
    assert busiest(load.in_flight) == counts[-1]


def test_without_a_note_there_is_no_curve():
    assert LoadLog().load().times_s == []
