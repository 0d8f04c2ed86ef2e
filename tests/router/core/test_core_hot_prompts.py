"""What replicas that come up should compute first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import DecodeError

from policies.base import RequestFacts
from router.api.one_token import one_token
from router.core import hot_prompts
from router.core.hot_prompts import LEAST_TOKENS, MOST_PLACES, HotPrompts

BLOCK = 256
PATH = b"/v1/completions"


def facts(prefix, shared_blocks, *, model="m", tokens=10_000):
    cached = {"a": shared_blocks * BLOCK} if shared_blocks else {}
    return RequestFacts(
        model=model,
        prefix=tuple(prefix),
        prefix_block_tokens=BLOCK,
        prompt_tokens=tokens,
        cached=cached,
    )


def see(hot, prefix, shared_blocks, times=1, body=b"{}", **more):
    for _ in range(times):
        hot.saw(facts(prefix, shared_blocks, **more), PATH, body)


def test_the_hottest_are_those_that_spare_most():
    hot = HotPrompts(2)
    see(hot, range(100, 110), 8, times=5, body=b"long")
    see(hot, range(200, 210), 4, times=8, body=b"often")
    see(hot, range(300, 310), 4, times=7, body=b"less")
    assert [place.sample for place in hot.hottest(None)] == [(PATH, b"long"), (PATH, b"often")]
    assert hot.hottest(None)[0].prefix == tuple(range(100, 108))
    assert hot.hottest(None)[0].tokens == 8 * BLOCK


def test_the_shortest_request_is_the_sample():
    hot = HotPrompts(1)
    see(hot, range(8), 8, times=3, body=b"xxxx", tokens=4000)
    see(hot, range(8), 8, body=b"xx", tokens=3000)
    see(hot, range(8), 8, body=b"xxx", tokens=3500)
    assert hot.hottest(None)[0].sample == (PATH, b"xx")
    assert hot.sample_bytes == 2


def test_what_is_short_or_new_or_a_conversation_of_its_own_is_nothing_to_all():
    hot = HotPrompts(8)
    see(hot, range(8), LEAST_TOKENS // BLOCK - 1, times=9)
    see(hot, range(8), 0, times=9)
    for turn in range(4, 60):
        see(hot, range(1000, 1100), turn)
    assert hot.hottest(None) == []


def test_a_replica_computes_nothing_for_models_that_it_does_not_serve():
    hot = HotPrompts(8)
    see(hot, range(8), 8, times=3, model="m")
    assert hot.hottest(["other"]) == []
    assert len(hot.hottest(["other", "m"])) == len(hot.hottest(frozenset())) == 1


def test_nothing_is_kept_where_nothing_is_wanted():
    hot = HotPrompts(0)
    see(hot, range(8), 8, times=9)
    assert (len(hot), hot.sample_bytes, hot.hottest(None)) == (0, 0, [])


def test_what_was_hot_long_ago_makes_room():
    hot = HotPrompts(1)
    see(hot, range(8), 8, times=4, body=b"old")
    for number in range(4 * MOST_PLACES):
        see(hot, range(number * 100, number * 100 + 8), 8)
        if number % 100 == 0:
            see(hot, range(-8, 0), 8, body=b"new")
    assert hot.hottest(None)[0].sample == (PATH, b"new")


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(4, 8), st.integers(0, 3000)), max_size=200)
)
def test_memory_is_bounded_and_counted(monkeypatch_bounds, requests):
    hot = HotPrompts(4)
    for stem, blocks, size in requests:
        see(hot, range(stem * 100, stem * 100 + 8), blocks, body=b"x" * size)
        samples = [place.sample[1] for place in hot._places.values() if place.sample]
        assert hot.sample_bytes == sum(map(len, samples)) <= hot_prompts.MOST_BYTES
        assert len(hot) <= hot_prompts.MOST_PLACES
        assert all(len(sample) <= hot_prompts.MOST_SAMPLE_BYTES for sample in samples)


@pytest.fixture(scope="module")
def monkeypatch_bounds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot_prompts, "MOST_BYTES", 5000)
        patch.setattr(hot_prompts, "MOST_SAMPLE_BYTES", 2000)
        patch.setattr(hot_prompts, "MOST_PLACES", 16)
        yield


def test_one_token_is_asked_for_and_the_prompt_is_as_it_was():
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "h\u00e9 \\ 1.0"}],
        "tools": [{"type": "function"}],
        "max_completion_tokens": 900,
        "max_tokens": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 4,
        "response_format": {"type": "json_object"},
        "seed": 12345678901234567890,
    }
    body = one_token(json.dumps(asked).encode())
    kept = {name: asked[name] for name in ("model", "messages", "tools", "seed")}
    assert json.loads(body) == kept | {"max_tokens": 1}


def test_what_is_no_request_is_not_made_one():
    with pytest.raises(DecodeError):
        one_token(b"[1]")
