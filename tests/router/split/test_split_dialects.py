"""The two requests that each dialect makes of one."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.split.base import Peer
from router.split.catalogue import DIALECTS

PREFILL = Peer("10.0.0.1", 8998, "10.0.0.1:21001", "engine-p")
DECODE = Peer("10.0.0.2", 8998, "10.0.0.2:22001")
CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hé \U0001f600"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 64,
    "min_tokens": 3,
    "temperature": 0.5,
    "seed": 12345678901234567890,
}


def legs(name, body, number=7):
    return DIALECTS[name].legs(json.dumps(body).encode(), PREFILL, DECODE, number)


def told(body):
    return json.loads(body)


# ----- nixl


def test_nixl_asks_for_one_token_and_hands_on_what_it_was_told():
    both = legs("nixl", CHAT)
    assert not both.at_once
    assert both.request_id is None
    asked = told(both.prefill_body)
    assert asked["kv_transfer_params"] == {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }
    assert asked["max_tokens"] == 1
    for gone in ("stream", "stream_options", "max_completion_tokens", "min_tokens"):
        assert gone not in asked
    assert asked["messages"] == CHAT["messages"]
    assert asked["seed"] == CHAT["seed"]
    params = {"do_remote_prefill": True, "remote_block_ids": [[1, 2]], "of_a_release_to_come": {}}
    answer = json.dumps({"choices": [{"finish_reason": "length"}], "kv_transfer_params": params})
    assert told(both.decode_body(answer.encode())) == CHAT | {"kv_transfer_params": params}


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b'{"kv_transfer_params": null}', b'{"kv_transfer_params": 3}', b"[]", b"\xff"],
)
def test_nixl_cannot_go_on_from_an_answer_that_tells_nothing(answer):
    assert legs("nixl", CHAT).decode_body(answer) is None


# ----- mooncake


def test_mooncake_gives_both_legs_one_id():
    both = legs("mooncake", CHAT, number=255)
    assert both.at_once
    ids = "xfer-00000000000000ff"
    assert told(both.prefill_body)["kv_transfer_params"] == {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "transfer_id": ids,
    }
    assert told(both.decode_body(b"")) == CHAT | {
        "kv_transfer_params": {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "remote_bootstrap_addr": "http://10.0.0.1:8998",
            "remote_engine_id": "engine-p",
            "transfer_id": ids,
        }
    }


def test_mooncake_needs_to_know_the_engines_name():
    unknown = Peer("10.0.0.1")
    assert DIALECTS["mooncake"].legs(json.dumps(CHAT).encode(), unknown, DECODE, 1) is None


# ----- p2p


def test_p2p_puts_both_addresses_into_the_id():
    both = legs("p2p", CHAT, number=10)
    assert not both.at_once
    assert both.request_id == (
        b"___prefill_addr_10.0.0.1:21001___decode_addr_10.0.0.2:22001_" + b"0" * 31 + b"a"
    )
    assert told(both.prefill_body)["max_tokens"] == 1
    assert "kv_transfer_params" not in told(both.prefill_body)
    assert told(both.decode_body(b"whatever")) == CHAT


def test_p2p_needs_both_addresses():
    assert DIALECTS["p2p"].legs(json.dumps(CHAT).encode(), PREFILL, Peer("b"), 1) is None


# ----- sglang


def test_sglang_gets_the_same_body_twice():
    both = legs("sglang", CHAT, number=(1 << 63) - 1)
    assert both.at_once
    places = {
        "bootstrap_host": "10.0.0.1",
        "bootstrap_port": 8998,
        "bootstrap_room": (1 << 63) - 1,
    }
    assert told(both.prefill_body) == CHAT | places
    assert both.decode_body(b"") == both.prefill_body


@pytest.mark.parametrize("field", ["text", "input_ids"])
def test_a_batch_for_sglang_gets_a_room_for_each_prompt(field):
    prompts = ["a", "b", "c"] if field == "text" else [[1, 2], [3], [4]]
    asked = told(legs("sglang", {field: prompts}, number=(1 << 63) - 1).prefill_body)
    assert asked["bootstrap_host"] == ["10.0.0.1"] * 3
    assert asked["bootstrap_port"] == [8998] * 3
    assert asked["bootstrap_room"] == [(1 << 63) - 1, 0, 1]


@pytest.mark.parametrize("body", [{"text": "a"}, {"input_ids": [1, 2, 3]}])
def test_a_single_prompt_for_sglang_is_no_batch(body):
    assert told(legs("sglang", body).prefill_body)["bootstrap_room"] == 7


# ----- trtllm

CONTEXT = {
    "choices": [
        {
            "finish_reason": "length",
            "disaggregated_params": {
                "request_type": "context_only",
                "first_gen_tokens": [5],
                "ctx_request_id": 3,
                "encoded_opaque_state": "abc",
            },
        }
    ],
    "prompt_token_ids": [1, 2, 3],
}


@pytest.mark.parametrize(
    ("body", "field"), [(CHAT, "prompt_token_ids"), ({"model": "m", "prompt": "a"}, "prompt")]
)
def test_trtllm_goes_on_from_the_context_servers_parameters(body, field):
    both = legs("trtllm", body)
    assert not both.at_once
    asked = told(both.prefill_body)
    assert asked["disaggregated_params"] == {"request_type": "context_only", "disagg_request_id": 7}
    assert asked["stream"] is False
    assert "stream_options" not in asked
    assert asked.get("max_completion_tokens") == body.get("max_completion_tokens")
    after = told(both.decode_body(json.dumps(CONTEXT).encode()))
    params = CONTEXT["choices"][0]["disaggregated_params"] | {"request_type": "generation_only"}
    assert after == body | {field: [1, 2, 3], "disaggregated_params": params}


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": "stop", "disaggregated_params": {"ctx_request_id": 3}},
        {"finish_reason": "length", "disaggregated_params": None},
        {"finish_reason": "length"},
    ],
)
def test_trtllm_does_not_go_on_from_what_is_over_or_tells_nothing(choice):
    answer = json.dumps({"choices": [choice]}).encode()
    assert legs("trtllm", CHAT).decode_body(answer) is None


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"choices": []}', b'{"choices": 1}'])
def test_trtllm_cannot_go_on_from_garbage(answer):
    assert legs("trtllm", CHAT).decode_body(answer) is None


# ----- all of them


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"best_of": 3},
        {"echo": True},
        {"prompt_logprobs": 1},
        {"use_beam_search": True},
    ],
)
def test_what_engines_do_not_split_is_not_split(name, more):
    assert legs(name, CHAT | more) is None


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("more", [{"n": 1}, {"n": None}, {"echo": False}, {"prompt_logprobs": 0}])
def test_what_says_no_more_than_the_default_is_split(name, more):
    assert legs(name, CHAT | more) is not None


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("nixl", {"kv_transfer_params": {"do_remote_decode": True}}),
        ("mooncake", {"kv_transfer_params": {"do_remote_decode": True}}),
        ("p2p", {"kv_transfer_params": {"a": 1}}),
        ("sglang", {"bootstrap_room": 5}),
        ("trtllm", {"disaggregated_params": {"request_type": "context_only"}}),
    ],
)
def test_a_transfer_of_the_clients_own_is_left_alone(name, own):
    assert legs(name, CHAT | own) is None


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"{", b'{"a": }', b"\xff\xfe"])
def test_what_is_no_object_is_not_split(name, body):
    assert DIALECTS[name].legs(body, PREFILL, DECODE, 1) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(st.text(max_size=8).map(lambda name: "x-" + name), VALUES, max_size=6),
    name=st.sampled_from(sorted(DIALECTS)),
)
def test_fields_that_nobody_knows_reach_both_sides(fields, name):
    both = legs(name, CHAT | fields)
    answer = json.dumps(CONTEXT | {"kv_transfer_params": {"a": 1}}).encode()
    for body in (both.prefill_body, both.decode_body(answer)):
        decoded = msgspec.json.decode(body)
        assert {key: decoded[key] for key in fields} == fields
