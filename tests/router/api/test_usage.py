import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.usage import TAIL_BYTES, Usage, usage_of

CHAT = {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}
DETAILED = {
    "prompt_tokens": 30,
    "total_tokens": 35,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 16},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSES = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 35,
}
ANTHROPIC = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 4,
    "cache_read_input_tokens": 16,
    "output_tokens": 5,
}
TIMINGS = {"cache_n": 16, "prompt_n": 14, "prompt_ms": 3.5, "predicted_n": 5, "predicted_ms": 40.1}


def body(**fields):
    return json.dumps(fields).encode()


def stream(*events):
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (body(choices=[], usage=CHAT), (30, 5, None)),
        (body(choices=[], usage=DETAILED, kv_transfer_params=None), (30, 5, 16)),
        (json.dumps({"usage": DETAILED}, indent=2).encode(), (30, 5, 16)),
        (body(usage={**CHAT, "prompt_tokens_details": None}), (30, 5, None)),
        (body(object="list", usage={"prompt_tokens": 8, "total_tokens": 8}), (8, None, None)),
        (body(output=[], usage=RESPONSES, user=None), (30, 5, 16)),
        (body(content=[], usage=ANTHROPIC), (30, 5, 16)),
        (body(usage=CHAT, timings=TIMINGS), (30, 5, 16)),
        (body(content="x", timings=TIMINGS), (30, 5, 16)),
        (body(generated_text="x", details={"generated_tokens": 5, "seed": None}), (None, 5, None)),
        (
            stream({"details": {"generated_tokens": 5, "input_length": 30}, "index": 5}),
            (30, 5, None),
        ),
        (
            body(
                text="x",
                meta_info={"prompt_tokens": 30, "completion_tokens": 5, "cached_tokens": 16},
            ),
            (30, 5, 16),
        ),
        (
            stream({"usage": None}, {"choices": [], "usage": DETAILED}) + b"data: [DONE]\n\n",
            (30, 5, 16),
        ),
        (
            stream(
                {"type": "message_start", "message": {"usage": {**ANTHROPIC, "output_tokens": 0}}},
                {"type": "content_block_delta", "delta": {"text": "x"}},
                {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 5}},
                {"type": "message_stop"},
            ),
            (30, 5, 16),
        ),
        (
            stream({"usage": {**CHAT, "completion_tokens": 4}}, {"usage": CHAT}),
            (30, 5, None),
        ),
    ],
)
def test_what_is_told(data, expected):
    assert usage_of(data) == Usage(*expected)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"data: [DONE]\n\n",
        body(usage=None),
        body(error={"message": "no", "details": {}}),
        body(usage={"prompt_tokens": None}),
        b'"usage": {"prompt_tokens": 1.5, "completion_tokens": 3e4}',
    ],
)
def test_nothing_is_told(data):
    assert usage_of(data) is None


counts = st.integers(0, 10**9)
usages = st.builds(
    lambda prompt, output, cached, order: dict(
        sorted(
            {
                "prompt_tokens": prompt,
                "completion_tokens": output,
                "prompt_tokens_details": {"cached_tokens": cached},
                "total_tokens": prompt + output,
            }.items(),
            key=lambda item: order.index(item[0]),
        )
    ),
    counts,
    counts,
    counts,
    st.permutations(
        ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "total_tokens"]
    ),
)
tricky = st.one_of(
    st.text(max_size=50),
    st.just('{"usage": {"prompt_tokens": 1, "completion_tokens": 2, "cached_tokens": 3}}'),
    st.just('"timings":{"prompt_n":1,"predicted_n":2}'),
    st.just('\\"usage\\": {\\"prompt_tokens\\": 7}'),
)


@given(usage=usages, content=tricky, after=tricky, indent=st.sampled_from([None, 2]))
def test_generated_text_is_never_taken_for_usage(usage, content, after, indent):
    fields = {"choices": [{"message": {"content": content}}], "usage": usage, "stop": after}
    data = json.dumps(fields, indent=indent).encode()
    expected = Usage(
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
    )
    assert usage_of(data) == expected
    assert usage_of(data[data.rindex(b'"usage"') :]) == expected
    del fields["usage"]
    assert usage_of(json.dumps(fields, indent=indent).encode()) is None


@given(usage=usages, chunks=st.lists(tricky, max_size=5))
def test_the_last_chunks_of_a_stream(usage, chunks):
    events = [{"choices": [{"delta": {"content": text}}], "usage": None} for text in chunks]
    data = stream(*events, {"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    told = usage_of(data)
    assert told is not None
    assert told.prompt_tokens == usage["prompt_tokens"]
    assert told.output_tokens == usage["completion_tokens"]


@given(st.binary(max_size=300), st.sampled_from([b'"usage"', b'"meta_info"', b'"timings"']))
def test_nothing_breaks_the_reader(junk, place):
    told = usage_of(junk + place + junk)
    assert told is None or isinstance(told, Usage)


def test_only_the_end_is_looked_at():
    early = body(usage=CHAT) + b" " * TAIL_BYTES
    assert usage_of(early) is None
    assert usage_of(b"x" * 10**6 + body(usage=CHAT)) == Usage(30, 5, None)
