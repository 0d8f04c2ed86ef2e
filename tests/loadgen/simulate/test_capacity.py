"""The search for the highest rate."""

import pytest

from loadgen.simulate.capacity import highest_scale


class Edge:
    """A target that is met up to a factor."""

    def __init__(self, at):
        self.at = at
        self.tried = []

    def __call__(self, scale):
        self.tried.append(scale)
        return scale <= self.at

    @property
    def last_met(self):
        return [scale for scale in self.tried if scale <= self.at][-1]


@pytest.mark.parametrize("edge", [0.013, 0.7, 1.0, 1.001, 37.0])
@pytest.mark.parametrize("tolerance", [0.1, 0.001])
def test_the_edge_is_found_within_the_tolerance(edge, tolerance):
    is_met = Edge(edge)
    found = highest_scale(is_met, 1.0, tolerance)
    assert found <= edge < found * (1 + tolerance)
    assert found == is_met.last_met


@pytest.mark.parametrize("edge", [0.3, 0.97, 1.0, 1.02, 9.0])
def test_a_good_guess_makes_the_search_short(edge):
    is_met = Edge(edge)
    found = highest_scale(is_met, 1.0, 0.01, 1.06)
    assert found <= edge < found * 1.01
    assert found == is_met.last_met
    if abs(edge - 1) < 0.05:
        assert len(is_met.tried) <= 6


def test_where_no_rate_will_do_there_is_no_capacity():
    assert highest_scale(lambda _: False, 1.0) is None


@pytest.mark.parametrize("start", [2.0, 30.0, 100.0])
def test_no_more_than_the_most_is_tried(start):
    is_met = Edge(float("inf"))
    assert highest_scale(is_met, start, most=30.0) == is_met.tried[-1] == 30.0


@pytest.mark.parametrize("edge", [0.2, 25.0, 29.9])
def test_below_the_most_it_is_found_all_the_same(edge):
    found = highest_scale(Edge(edge), 100.0, 0.01, most=30.0)
    assert found <= edge < found * 1.01
