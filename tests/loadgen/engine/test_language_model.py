"""What the simulated model says."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from loadgen import tokens
from loadgen.engine import language_model as lm

PROMPTS = st.lists(st.integers(0, tokens.VOCABULARY_SIZE - 1), min_size=1, max_size=60)


def answer(prompt, most, least=0, model="m"):
    return lm.write(lm.read(lm.start(model), prompt), len(prompt), most, least)


@given(PROMPTS, st.integers(1, 400), st.data())
def test_an_answer_resumed_anywhere_goes_on_as_if_nothing_had_happened(prompt, most, data):
    whole = answer(prompt, most)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert answer(prompt + whole[:cut], most - cut) == whole[cut:]


@given(PROMPTS, st.integers(1, 100), st.integers(1, 100))
def test_an_answer_can_be_kept_from_ending(prompt, least, more):
    kept = answer(prompt, least + more, least)
    assert len(kept) >= least
    assert tokens.Special.END_OF_TEXT not in kept[:-1]
    assert all(0 <= t < tokens.HASHED_IDS_START for t in kept[:-1])


@given(PROMPTS, st.integers(2, 32))
def test_block_keys_are_the_states_at_the_blocks_ends(prompt, size):
    state, keys = lm.read_blocks(lm.start("m"), prompt, size)
    assert state == lm.read(lm.start("m"), prompt)
    assert len(keys) == len(prompt) // size
    for index, key in enumerate(keys):
        assert key == lm.read(lm.start("m"), prompt[: (index + 1) * size])


def test_every_token_before_matters():
    base = answer([5, 6, 7, 8], 20, 20)
    for index in range(4):
        other = [5, 6, 7, 8]
        other[index] += 1
        assert answer(other, 20, 20) != base
    assert answer([5, 6, 7, 8], 20, 20, model="another") != base


def test_lengths_are_geometric_and_bounded():
    lengths = [len(answer([n], 10_000)) for n in range(2000)]
    assert 230 < statistics.mean(lengths) < 282
    assert 155 < statistics.median(lengths) < 200
    assert max(lengths) <= lm.LONGEST_ANSWER_TOKENS
    bounded = answer([1] * (lm.LONGEST_ANSWER_TOKENS - 3), 100, 3)
    assert len(bounded) == 3
    assert bounded[-1] == tokens.Special.END_OF_TEXT


def test_all_words_are_said_about_equally_often():
    words = set()
    for n in range(200):
        words.update(answer([n], 200, 200))
    assert len(words) > 0.99 * len(tokens.OUTPUT_WORDS)
