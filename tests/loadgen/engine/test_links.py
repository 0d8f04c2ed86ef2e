import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engine.links import Links


def run_out(links):
    """The times at which transfers end, by what was told of them."""
    ends = {}
    while (at := links.next_end_s()) is not None:
        for flow in links.advance(at):
            ends[flow.driver] = at
    return ends


def test_a_transfer_alone_has_the_whole_link():
    links = Links(100.0, 0.5)
    links.begin("a", "b", 200.0, 1.0, "x")
    assert run_out(links) == {"x": pytest.approx(3.5)}


def test_two_into_one_replica_share_its_way_in():
    links = Links(100.0, 0.0)
    links.begin("a", "c", 100.0, 0.0, "x")
    links.begin("b", "c", 200.0, 0.0, "y")
    assert run_out(links) == {"x": pytest.approx(2.0), "y": pytest.approx(3.0)}


def test_two_out_of_one_replica_share_its_way_out():
    links = Links(100.0, 0.0)
    links.begin("a", "b", 100.0, 0.0, "x")
    links.begin("a", "c", 100.0, 0.0, "y")
    assert run_out(links) == {"x": pytest.approx(2.0), "y": pytest.approx(2.0)}


def test_other_links_are_no_concern():
    links = Links(100.0, 0.0)
    links.begin("a", "b", 100.0, 0.0, "x")
    links.begin("b", "a", 100.0, 0.0, "y")
    links.begin("c", "d", 100.0, 0.0, "z")
    assert run_out(links) == dict.fromkeys("xyz", pytest.approx(1.0))


def test_what_is_cancelled_leaves_its_share_to_the_others():
    links = Links(100.0, 0.0)
    first = links.begin("a", "b", 100.0, 0.0, "x")
    links.begin("a", "b", 100.0, 0.0, "y")
    links.cancel(first, 1.0)
    links.cancel(first, 1.0)
    assert run_out(links) == {"y": pytest.approx(1.5)}


def test_nothing_to_bring_takes_the_latency():
    links = Links(100.0, 0.25)
    links.begin("a", "b", 0.0, 0.0, "x")
    assert run_out(links) == {"x": 0.25}


def test_a_link_that_nothing_passes_is_refused():
    with pytest.raises(ValueError, match="faster than"):
        Links(0.0, 0.0)


transfers = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 3), st.floats(0, 500)),
    min_size=1,
    max_size=12,
)


@given(transfers, st.floats(0.001, 0.7))
def test_how_often_one_looks_changes_nothing(planned, look_s):
    """And no link carries more than it can."""

    def ends(look_s):
        links, ended, now = Links(100.0, 0.01), {}, 0.0
        starts = []
        for number, (gap_s, source, target, size) in enumerate(planned):
            now += gap_s
            starts.append((now, number, source, target, size))
        while starts or links.next_end_s() is not None:
            times = [links.next_end_s(), starts[0][0] if starts else None]
            at = min(time for time in times if time is not None)
            while look_s and links.now_s + look_s < at:
                for flow in links.advance(links.now_s + look_s):  # what rounding left, at most
                    ended[flow.driver] = links.now_s
            for flow in links.advance(at):
                ended[flow.driver] = at
            if starts and starts[0][0] <= at:
                _, number, source, target, size = starts.pop(0)
                links.begin(f"out{source}", f"in{target}", size, at, number)
        return ended

    seldom, often = ends(None), ends(look_s)
    assert seldom == pytest.approx(often, abs=1e-6)
    busiest = max(sum(size for _, _, t, size in planned if t == target) for target in range(4))
    assert max(seldom.values()) >= busiest / 100.0
