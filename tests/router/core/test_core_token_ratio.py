"""Bytes per token, learned from what engines say of their prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.token_ratio import (
    EVERY,
    KNOWN_AFTER,
    LEAST,
    MAX_MODELS,
    MOST,
    USUAL_BYTES_PER_TOKEN,
    TokenRatio,
)


def tell(ratio, model, prompt_bytes, true_ratio, times=1):
    for _ in range(times):
        ratio.learn(model, round(prompt_bytes / ratio.of(model)), round(prompt_bytes / true_ratio))


def test_a_model_of_which_nothing_is_known_has_the_usual_ratio():
    assert TokenRatio().of("new") == USUAL_BYTES_PER_TOKEN


@pytest.mark.parametrize("true_ratio", [1.2, 3.0, 6.5])
def test_the_ratio_of_a_model_is_found_within_thirty_prompts(true_ratio):
    ratio = TokenRatio()
    tell(ratio, "m", 20_000, true_ratio, times=30)
    assert ratio.of("m") == pytest.approx(true_ratio, rel=0.02)
    assert ratio.of("other") == USUAL_BYTES_PER_TOKEN


def test_a_prompt_of_token_ids_changes_nothing():
    ratio = TokenRatio()
    tell(ratio, "m", 20_000, 3.0, times=30)
    before = ratio.of("m")
    ratio.learn("m", 512, 512)
    assert ratio.of("m") == before


def test_one_odd_prompt_moves_it_by_a_fifth_of_the_way_at_most():
    ratio = TokenRatio()
    ratio.learn("m", 1000, 2000)
    assert ratio.of("m") == pytest.approx(4 * 0.5**0.2)


@pytest.mark.parametrize(("estimated", "told"), [(40_000, 1000), (100, 1000), (0, 5), (5, 0)])
def test_a_prompt_that_is_no_text_teaches_nothing(estimated, told):
    ratio = TokenRatio()
    ratio.learn("m", estimated, told)
    assert ratio.of("m") == USUAL_BYTES_PER_TOKEN


def test_a_known_model_is_looked_at_now_and_then():
    ratio = TokenRatio()
    assert all(ratio.wanted("m") for _ in range(100))
    tell(ratio, "m", 20_000, 4.0, times=KNOWN_AFTER)
    assert sum(ratio.wanted("m") for _ in range(10 * EVERY)) == 10


def test_names_without_end_do_not_fill_the_memory():
    ratio = TokenRatio()
    for number in range(MAX_MODELS + 50):
        tell(ratio, f"m{number}", 20_000, 2.0)
    assert sum(ratio.of(f"m{n}") != USUAL_BYTES_PER_TOKEN for n in range(MAX_MODELS + 50)) == (
        MAX_MODELS
    )


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), max_size=60))
def test_it_stays_credible_whatever_is_told(told):
    ratio = TokenRatio()
    for estimated_tokens, told_tokens in told:
        ratio.learn("m", estimated_tokens, told_tokens)
        assert LEAST <= ratio.of("m") <= MOST
