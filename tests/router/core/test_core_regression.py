"""Least squares, one observation at a time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from router.core.regression import Regression

DRAWS = 400


def draws(rng, values, count=DRAWS, noise=0.0):
    """Terms, and what would be seen of them."""
    for _ in range(count):
        terms = [1.0, *(rng.uniform(0.1, 8.0) for _ in values[1:])]
        seen = sum(v * t for v, t in zip(values, terms, strict=True))
        yield terms, seen * rng.lognormvariate(0, noise)


def learned(values, start, *, noise=0.0, seed=1, memory=200.0):
    regression = Regression(list(start), 0.7, 0.25, memory)
    for terms, seen in draws(Random(seed), values, noise=noise):
        regression.learn(terms, seen)
    return regression


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    values=st.tuples(st.floats(0.5, 2.0), st.floats(0.3, 3.0), st.floats(0.3, 3.0)),
    seed=st.integers(0, 1000),
)
def test_terms_are_found_from_a_start_that_is_off(values, seed):
    regression = learned(values, (1.0, 1.0, 1.0), seed=seed)
    for terms, seen in draws(Random(seed + 1), values, 20):
        assert regression.predict(terms) == pytest.approx(seen, rel=0.05)


def test_noise_evens_out():
    values = (1.0, 2.0, 0.5)
    regression = learned(values, (2.0, 1.0, 1.0), noise=0.2)
    for terms, seen in draws(Random(5), values, 20):
        assert regression.predict(terms) == pytest.approx(seen, rel=0.12)


def test_one_outlier_moves_little():
    regression = learned((1.0, 2.0), (1.0, 2.0))
    before = regression.predict([1.0, 3.0])
    regression.learn([1.0, 3.0], 1000 * before)
    assert regression.predict([1.0, 3.0]) == pytest.approx(before, rel=0.1)


def test_no_term_is_learned_away():
    regression = Regression([1.0, 1.0], 0.7, 0.25, 50.0)
    for _ in range(200):
        regression.learn([1.0, 5.0], 0.0)
    assert all(value >= 0.02 for value in regression.values)
    assert regression.predict([1.0, 5.0]) < 1.0


def test_what_is_always_the_same_tells_nothing_of_the_single_terms():
    # with one point only, forgetting must not let the doubt about the other direction explode
    regression = Regression([1.0, 1.0], 0.7, 0.25, 50.0)
    for _ in range(20_000):
        regression.learn([1.0, 2.0], 3.0)
    regression.learn([1.0, 8.0], 18.0)
    assert regression.predict([1.0, 2.0]) == pytest.approx(3.0, rel=0.2)
    assert all(0 < value < 10 for value in regression.values)


def test_the_newer_half_is_believed():
    regression = learned((1.0, 1.0), (1.0, 1.0), memory=50.0)
    for terms, seen in draws(Random(2), (2.0, 3.0)):
        regression.learn(terms, seen)
    assert regression.predict([1.0, 4.0]) == pytest.approx(14.0, rel=0.05)
