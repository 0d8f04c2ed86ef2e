"""Prompts: exact lengths, and prefixes that are shared exactly as far as the trace says."""

from __future__ import annotations

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from loadgen import tokens
from loadgen.replay.prompts import PromptWriter
from loadgen.trace.request import TraceRequest


def request_of(prompt_tokens, *hash_ids, block_tokens=512):
    return TraceRequest(
        arrival_s=0,
        prompt_tokens=prompt_tokens,
        output_tokens=1,
        hash_ids=hash_ids,
        block_tokens=block_tokens,
    )


def shared_tokens(one, other):
    pairs = zip(tokens.encode(one), tokens.encode(other), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


@given(st.integers(1, 3000), st.integers(1, 700), st.integers(0, 9))
def test_prompts_have_the_very_length_wanted(prompt_tokens, block_tokens, ids):
    blocks = -(-prompt_tokens // block_tokens)
    request = request_of(prompt_tokens, *range(min(ids, blocks)), block_tokens=block_tokens)
    assert tokens.count(PromptWriter("s").write(0, request)) == prompt_tokens


def test_equal_leading_ids_share_whole_blocks_and_not_a_token_more():
    writer = PromptWriter("s")
    first = writer.write(0, request_of(1600, 7, 8, 9, 10))
    again = writer.write(1, request_of(2000, 7, 8, 11, 12))
    assert 1024 <= shared_tokens(first, again) <= 1026  # words may meet by chance


def test_the_partial_block_is_unique_even_under_an_equal_id():
    writer = PromptWriter("s")
    first, again = (writer.write(number, request_of(1000, 7, 8)) for number in (0, 1))
    assert 512 <= shared_tokens(first, again) <= 514


def test_a_block_that_is_partial_in_one_prompt_is_whole_in_another():
    writer = PromptWriter("s")
    shorter, longer = (
        writer.write(0, request_of(600, 7, 8)),
        writer.write(1, request_of(1024, 7, 8)),
    )
    assert 512 <= shared_tokens(shorter, longer) <= 514


def test_prompts_without_ids_share_nothing():
    writer = PromptWriter("s")
    first, again = (writer.write(number, request_of(1000)) for number in (0, 1))
    assert shared_tokens(first, again) <= 2


def test_the_place_of_a_block_is_part_of_no_text():
    writer = PromptWriter("s")
    front = writer.write(0, request_of(512, 5))
    behind = writer.write(1, request_of(1024, 4, 5))
    assert behind.endswith(front)


def test_texts_do_not_depend_on_what_is_remembered():
    requests = [request_of(5 * 512, *range(n, n + 5)) for n in (0, 3, 0, 50, 1)]
    forgetful, mindful = PromptWriter("s", kept_blocks=1), PromptWriter("s")
    for number, request in enumerate(requests):
        assert forgetful.write(number, request) == mindful.write(number, request)


def test_another_salt_gives_other_prompts():
    request = request_of(1024, 1, 2)
    prompts = {PromptWriter(salt).write(0, request) for salt in ("a", "b", "a")}
    assert len(prompts) == 2
    assert shared_tokens(*prompts) <= 2
