"""Counted gaps have the quantiles of the gaps themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.quantiles import nearest_rank
from loadgen.simulate.gaps import RESOLUTION_S, TokenGaps


def test_without_gaps_there_is_none():
    assert TokenGaps().quantile(0.99) is None


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), min_size=1, max_size=30),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
)
def test_as_the_nearest_rank_of_all_of_them(counted, share):
    gaps = TokenGaps()
    for gap_s, times in counted:
        gaps.add(gap_s, times)
    every = sorted(gap_s for gap_s, times in counted for _ in range(times))
    assert gaps.quantile(share) == pytest.approx(nearest_rank(every, share), abs=RESOLUTION_S)
