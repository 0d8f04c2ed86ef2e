"""The lengths of answers, and the errors of predictions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.accuracy import ERROR_BOUNDS, Accuracy
from router.core.lengths import LEARN_EVERY, MEMORY_ANSWERS, Lengths


def test_the_first_answers_count_at_once():
    lengths = Lengths()
    means = [lengths.survival.mean_tokens]
    for _ in range(LEARN_EVERY - 1):
        lengths.ended(2000)
        means.append(lengths.survival.mean_tokens)
    assert means == sorted(means)
    assert len(set(means)) == len(means)
    assert means[-1] > 1000


def test_a_new_kind_of_answers_is_believed_in_time():
    lengths = Lengths()
    for _ in range(5000):
        lengths.ended(100)
    for _ in range(int(MEMORY_ANSWERS)):
        lengths.ended(1000)
    assert lengths.survival.ends_within(1, 200) == pytest.approx(1 / 2.72, abs=0.05)


@given(
    pairs=st.lists(st.tuples(st.floats(0.001, 50), st.floats(0.001, 50)), min_size=1, max_size=100),
    share=st.floats(0.01, 1.0),
)
def test_a_quantile_is_within_the_bounds_that_hold_it(pairs, share):
    accuracy = Accuracy()
    for predicted_s, seen_s in pairs:
        accuracy.observe(predicted_s, seen_s)
    errors = sorted(abs(p - s) / s for p, s in pairs)
    assert accuracy.count == len(errors)
    assert accuracy.sum == pytest.approx(sum(errors))
    found = accuracy.quantile(share)
    true = errors[max(-(-int(share * 1e9) * len(errors) // 1_000_000_000) - 1, 0)]
    upper = next((bound for bound in ERROR_BOUNDS if true <= bound), ERROR_BOUNDS[-1])
    assert found <= upper + 1e-9


def test_quantiles_of_many_errors_are_close():
    accuracy, rng = Accuracy(), Random(3)
    errors = sorted(rng.uniform(0, 0.4) for _ in range(5000))
    for error in errors:
        accuracy.observe(1 + error, 1.0)
    assert accuracy.quantile(0.5) == pytest.approx(0.2, abs=0.02)
    assert accuracy.quantile(0.9) == pytest.approx(0.36, abs=0.02)


def test_no_predictions_have_no_quantile():
    assert Accuracy().quantile(0.5) is None
