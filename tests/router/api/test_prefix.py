import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.api.body import Reading, read_json, understand_json
from router.api.prefix import BLOCK_BYTES, BLOCK_IDS, MAX_BLOCKS, id_keys, root, text_keys

ROOT = root(None, None)


def facts(tenant=None, reading=Reading(), indent=None, **fields):  # noqa: B008 - frozen
    separators = None if indent else (",", ":")
    body = json.dumps(fields, indent=indent, separators=separators).encode()
    return understand_json(read_json(body), None, tenant, reading)


def keys(**fields):
    return facts(**fields).prefix


def message(role, content):
    return {"role": role, "content": content}


def shared(one, other):
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    assert set(one[count:]).isdisjoint(other[count:]), "keys that are equal behind a difference"
    return count


LONG = "a b c d " * 1000
turns = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=30), st.integers(1, 150)),
    min_size=1,
    max_size=6,
)


@given(turns=turns, more=turns, indent=st.sampled_from([None, 1, 4]))
def test_a_conversation_that_goes_on_begins_with_the_same_keys(turns, more, indent):
    told = [message(role, text * times) for role, text, times in turns]
    further = [message(role, text * times) for role, text, times in more]
    before = keys(messages=told, indent=indent)
    after = keys(messages=told + further, indent=indent)
    assert after[: len(before)] == before


@given(st.text(max_size=40), st.integers(1, 200), st.text(max_size=3000))
def test_a_text_that_goes_on_begins_with_the_same_keys(text, times, more):
    before = keys(prompt=text * times)
    assert keys(prompt=text * times + more)[: len(before)] == before


@given(
    common=st.binary(max_size=6 * BLOCK_BYTES),
    one=st.binary(max_size=2 * BLOCK_BYTES),
    other=st.binary(max_size=2 * BLOCK_BYTES),
)
def test_texts_share_the_blocks_that_are_equal(common, one, other):
    first, second = common + one, common + other
    equal = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    expected = min(equal // BLOCK_BYTES, *((len(t) - 1) // BLOCK_BYTES for t in (first, second)))
    found = text_keys(memoryview(first), ROOT), text_keys(memoryview(second), ROOT)
    assert shared(*found) == max(0, expected)


@pytest.mark.parametrize(
    ("length", "blocks"),
    [(0, 0), (1, 0), (BLOCK_BYTES, 0), (BLOCK_BYTES + 1, 1), (2 * BLOCK_BYTES + 1, 2)],
)
def test_only_full_blocks_that_do_not_end_the_text_have_keys(length, blocks):
    assert len(text_keys(memoryview(b"x" * length), ROOT)) == blocks


@pytest.mark.parametrize(
    ("length", "blocks"),
    [(0, 0), (1, 0), (BLOCK_IDS, 0), (BLOCK_IDS + 1, 1), (2 * BLOCK_IDS, 1)],
)
def test_the_last_id_is_computed_again(length, blocks):
    assert len(id_keys([5] * length, ROOT)) == blocks


def test_endless_prompts_get_no_endless_keys():
    assert len(text_keys(memoryview(b"x" * (MAX_BLOCKS + 9) * BLOCK_BYTES), ROOT)) == MAX_BLOCKS
    assert len(id_keys([1] * (MAX_BLOCKS + 9) * BLOCK_IDS, ROOT)) == MAX_BLOCKS


def test_short_prompts_have_none():
    seen = facts(messages=[message("user", "hi")])
    assert (seen.prefix, seen.prefix_block_tokens) == ((), 0)
    assert keys() == ()


def test_blocks_are_worth_what_the_model_makes_of_its_bytes():
    assert facts(prompt=LONG).prefix_block_tokens == 256
    dense = Reading(bytes_per_token=lambda model: 3.2 if model == "m" else 4)
    seen = facts(model="m", prompt=LONG, reading=dense)
    assert seen.prefix_block_tokens == 320
    assert seen.prompt_tokens == int((len(LONG) + 2) / 3.2)
    assert len(seen.prefix) * seen.prefix_block_tokens <= seen.prompt_tokens


def test_keys_can_be_left_out():
    assert facts(prompt=LONG, reading=Reading(prefixes=False)).prefix == ()


SALTED = [
    {},
    {"model": "m"},
    {"model": "n"},
    {"tenant": "t"},
    {"tenant": "u"},
    {"tenant": "m"},
    {"cache_salt": "s"},
    {"extra_key": "s"},
    {"lora_path": "s"},
    {"chat_template": "s"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"reasoning_effort": "high"},
]


def test_what_shares_no_cache_shares_no_key():
    found = [keys(prompt=LONG, **fields) for fields in SALTED]
    assert len(set().union(*found)) == sum(map(len, found))
    assert keys(prompt=LONG, temperature=1, max_tokens=5) == found[0]


def test_the_system_message_comes_before_the_tools():
    tools = [{"type": "function", "function": {"name": "f", "description": LONG}}]
    talk = [message("system", LONG), message("user", LONG)]
    plain, tooled = keys(messages=talk), keys(messages=talk, tools=tools)
    other = keys(messages=talk, tools=[*tools, *tools])
    assert shared(plain, tooled) == shared(plain, other) == len(LONG) // BLOCK_BYTES
    assert shared(tooled, other) >= 2 * (len(LONG) // BLOCK_BYTES)
    longer = keys(messages=[*talk, message("assistant", LONG)], tools=tools)
    assert shared(tooled, longer) == len(tooled)
    assert keys(messages=talk, tools=[]) == keys(messages=talk, tools=None) == plain


def test_tools_come_first_where_no_system_message_does():
    tools = [{"type": "function", "function": {"name": "f", "description": LONG}}]
    one = keys(messages=[message("user", LONG)], tools=tools)
    other = keys(messages=[message("user", "other " + LONG)], tools=tools)
    assert shared(one, other) == len(json.dumps(tools, separators=(",", ":"))) // BLOCK_BYTES


def test_a_system_field_comes_before_all():
    one = keys(messages=[message("user", LONG)], system=LONG, tools=[{"name": "f"}])
    other = keys(messages=[message("user", "x" + LONG)], system=LONG, tools=[{"name": "g"}])
    assert shared(one, other) == len(LONG) // BLOCK_BYTES
    assert shared(keys(instructions=LONG, input="a"), keys(instructions=LONG, input="b")) > 0


ids = st.lists(st.integers(0, 2**32 - 1), min_size=BLOCK_IDS + 1, max_size=3 * BLOCK_IDS)


@settings(max_examples=25)
@given(ids)
def test_token_ids_are_exact_however_they_are_written(ids):
    expected = id_keys(ids, root(None, "m"))
    for field in ("prompt", "input_ids", "token_ids"):
        for value in (ids, [ids]):
            for indent in (None, 1):
                seen = facts(model="m", indent=indent, **{field: value})
                assert seen.prefix == expected
                assert seen.prefix_block_tokens == BLOCK_IDS
                assert seen.prompt_tokens == len(ids)


@pytest.mark.parametrize(
    "prompt",
    [
        [[1] * 500, [1] * 500],
        [1] * 500 + [2**32],
        [1] * 500 + [-1],
        [1] * 500 + [1.5],
        [1] * 500 + ["text"],
    ],
)
def test_what_is_no_single_list_of_ids_has_no_keys(prompt):
    assert keys(prompt=prompt) == ()


def test_messages_that_no_template_takes_do_no_harm():
    for messages in ([message("system", LONG), 3], {"role": "system", "content": LONG}, LONG):
        assert facts(messages=messages, tools=[{"name": "f"}]).prompt_tokens > 0
