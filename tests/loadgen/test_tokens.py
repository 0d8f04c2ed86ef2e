"""The simulated tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import tokens

OUTPUT_IDS = st.lists(st.integers(0, len(tokens.OUTPUT_WORDS) - 1))


def test_the_vocabulary_has_4096_distinct_words_of_one_piece_each():
    assert len(set(tokens.OUTPUT_WORDS)) == len(tokens.OUTPUT_WORDS) == 4096
    for index, word in enumerate(tokens.OUTPUT_WORDS):
        assert tokens.encode(word) == [index]


def test_prompt_words_are_one_token_each_with_distinct_ids():
    ids = [tokens.encode(word) for word in tokens.PROMPT_WORDS]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == len(tokens.PROMPT_WORDS) >= 256


@given(OUTPUT_IDS)
def test_generated_text_is_cut_back_into_its_ids(ids):
    assert tokens.encode(tokens.decode(ids)) == ids


@given(st.text(), OUTPUT_IDS)
def test_generated_text_keeps_its_ids_behind_a_prompt(prompt, ids):
    whole = tokens.encode(prompt + tokens.decode(ids))
    if prompt == prompt.rstrip():
        assert whole == tokens.encode(prompt) + ids
    elif ids:  # white space at the prompt's end joins the first generated word
        assert whole[len(whole) - len(ids) + 1 :] == ids[1:]


@given(st.text())
def test_count_is_the_length_of_the_encoding(text):
    assert tokens.count(text) == len(tokens.encode(text))


@given(st.text(alphabet=st.characters()))
def test_every_text_has_ids_inside_the_vocabulary_below_the_special_ones(text):
    assert all(0 <= token < tokens.HASHED_IDS_END for token in tokens.encode(text))


def test_hashed_ids_are_stable_across_processes():
    assert tokens.encode("Hello, wonderful world") == [86251, 73650, 111358, 21195]


def test_white_space_at_the_end_is_one_token():
    assert tokens.count("a b \n\t ") == 3
    assert tokens.count("   ") == 1
    assert tokens.encode("") == []


def test_long_words_are_cut_after_eight_characters():
    assert tokens.count("x" * 17) == 3


def test_what_cannot_be_spelled_decodes_to_a_placeholder():
    assert tokens.decode([4096, 131071]) == " #01000 #1ffff"
    assert tokens.decode([tokens.Special.USER]) == "<|user|>"
    with pytest.raises(ValueError, match="131080"):
        tokens.decode([tokens.VOCABULARY_SIZE])


def test_the_first_id_outside_the_vocabulary_is_named():
    assert tokens.out_of_vocabulary([]) is None
    assert tokens.out_of_vocabulary([0, tokens.VOCABULARY_SIZE - 1]) is None
    assert tokens.out_of_vocabulary([1, -5, 200000]) == -5
