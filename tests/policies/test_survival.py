"""How long answers are, against counting."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.survival import BINS, EDGES, PRIOR_TOKENS, Survival, bin_of

lengths = st.lists(st.integers(1, 200_000), min_size=1, max_size=300)


def law(answers, times=1):
    ended = [0.0] * BINS
    for tokens in answers:
        ended[bin_of(tokens)] += times
    survival = Survival()
    survival.learn(ended)
    return survival


@given(tokens=st.floats(0, 1e9))
def test_each_length_is_within_the_edges_of_its_bin(tokens):
    number = bin_of(tokens)
    assert 0 <= number < BINS
    upper = EDGES[number + 1] if number < BINS - 1 else inf
    assert (0 if number == 0 else EDGES[number] * (1 - 1e-12)) <= tokens <= upper * (1 + 1e-12)


def test_without_answers_the_prior_holds():
    survival = Survival()
    assert survival.mean_tokens == pytest.approx(PRIOR_TOKENS, rel=0.05)
    assert survival.remaining_tokens(50) == pytest.approx(PRIOR_TOKENS, rel=0.05)


@given(answers=lengths)
def test_the_curve_falls_and_the_outlook_is_finite(answers):
    survival = law(answers)
    shares = [survival.alive(edge) for edge in EDGES]
    assert shares[0] == 1.0
    assert all(a >= b >= 0 for a, b in pairwise(shares))
    for tokens in (0, 1, 7, 1000, 1e6, 1e8):
        alive, remaining = survival.outlook(tokens)
        assert alive == survival.alive(tokens)
        assert remaining == survival.remaining_tokens(tokens)
        assert 0 < remaining < inf


@given(answers=lengths, tokens=st.floats(0, 1e6), more=st.floats(0, 1e5), most=st.floats(0, 1e5))
def test_chances_are_chances_and_grow_with_the_time_given(answers, tokens, more, most):
    survival = law(answers)
    sooner, later = sorted((more, most))
    chance = survival.ends_within(tokens, sooner)
    assert 0 <= chance <= survival.ends_within(tokens, later) <= 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_agrees_with_counting(seed):
    rng = Random(seed)
    answers = [max(int(rng.lognormvariate(5, 1)), 1) for _ in range(20_000)]
    survival = law(answers)
    assert survival.mean_tokens == pytest.approx(sum(answers) / len(answers), rel=0.08)
    for tokens in (20, 100, 150, 400):
        longer = [a for a in answers if a > tokens]
        assert survival.alive(tokens) == pytest.approx(len(longer) / len(answers), abs=0.04)
        left = sum(a - tokens for a in longer) / len(longer)
        assert survival.remaining_tokens(tokens) == pytest.approx(left, rel=0.2)
        ends = sum(a <= tokens + 100 for a in longer) / len(longer)
        assert survival.ends_within(tokens, 100) == pytest.approx(ends, abs=0.08)


def test_whoever_outlives_all_is_expected_to_end():
    survival = law([100], times=1_000_000)
    assert survival.ends_within(100_000, 1) == pytest.approx(1.0, abs=0.05)
