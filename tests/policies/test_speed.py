"""The terms of a replica's speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.speed import Speed

tokens = st.floats(1, 200_000)


def test_a_prefill_by_hand():
    speed = Speed(prefill_s=0.01, token_s=1e-5, pair_s=1e-9)
    # 1,000 tokens behind 500: each sees the 500, and on average 500 of their own
    assert speed.prefill_time_s(1000, 500) == pytest.approx(0.01 + 0.01 + 1e-3)
    speed.prefill_factor = 3.0
    assert speed.prefill_time_s(1000, 500) == pytest.approx(3 * 0.021)


def test_a_step_by_hand():
    speed = Speed(step_s=0.01, stream_s=1e-4, context_s=1e-7, step_factor=2.0)
    assert speed.step_time_s(10, 50_000) == pytest.approx(2 * (0.01 + 0.001 + 0.005))


@given(new=tokens, cached=tokens)
def test_two_parts_of_a_prompt_cost_the_pairs_of_the_whole(new, cached):
    speed = Speed(prefill_s=0.0)
    whole = speed.prefill_time_s(cached + new)
    parts = speed.prefill_time_s(cached) + speed.prefill_time_s(new, cached)
    assert parts == pytest.approx(whole)


@given(new=tokens, tpot_s=st.floats(0.005, 1.0))
def test_a_small_budget_spares_the_streams(new, tpot_s):
    large, small = Speed(steps_per_token=1 / 8192), Speed(steps_per_token=1 / 512)
    prefill_s = large.prefill_time_s(new)
    assert 0 <= small.stall_s(prefill_s, new, tpot_s) <= large.stall_s(prefill_s, new, tpot_s)
    assert large.stall_s(prefill_s, new, tpot_s) <= prefill_s
