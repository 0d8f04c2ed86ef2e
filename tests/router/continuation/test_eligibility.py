import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.continuation.eligibility import judge
from router.continuation.reasons import Reason
from router.continuation.wish import Api, Wish

CHAT = b"/v1/chat/completions"
COMPLETIONS = b"/v1/completions"


def chat(**fields):
    return judge(
        CHAT, json.dumps({"messages": [{"role": "user", "content": "?"}], **fields}).encode()
    )


def completion(**fields):
    return judge(COMPLETIONS, json.dumps({"prompt": "Once", **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n": 2}, Reason.CHOICES),
        ({"n": [1]}, Reason.CHOICES),
        ({"best_of": 3}, Reason.BEAMS),
        ({"use_beam_search": True}, Reason.BEAMS),
        ({"logprobs": True}, Reason.LOGPROBS),
        ({"logprobs": 0}, Reason.LOGPROBS),
        ({"prompt_logprobs": 1}, Reason.LOGPROBS),
        ({"response_format": {"type": "json_object"}}, Reason.GUIDED),
        ({"guided_regex": "a+"}, Reason.GUIDED),
        ({"structured_outputs": {"choice": ["a"]}}, Reason.GUIDED),
        ({"ebnf": "root ::= x"}, Reason.GUIDED),
        ({"tool_choice": "required"}, Reason.GUIDED),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, Reason.GUIDED),
        ({"echo": True}, Reason.ECHO),
        ({"suffix": "the end"}, Reason.SUFFIX),
        ({"truncate_prompt_tokens": 10}, Reason.TRUNCATION),
        ({"stop_regex": "a+"}, Reason.STOP_PATTERN),
        ({"modalities": ["text", "audio"]}, Reason.EXTRAS),
        ({"return_hidden_states": True}, Reason.EXTRAS),
        ({"kv_transfer_params": {"do_remote_prefill": True}}, Reason.DISAGGREGATED),
        ({"bootstrap_room": 7}, Reason.DISAGGREGATED),
        ({"max_tokens": "many"}, Reason.UNREADABLE_REQUEST),
        ({"max_tokens": 0}, Reason.UNREADABLE_REQUEST),
        ({"max_tokens": True}, Reason.UNREADABLE_REQUEST),
        ({"stop": [""]}, Reason.UNREADABLE_REQUEST),
        ({"stop": 3}, Reason.UNREADABLE_REQUEST),
    ],
)
def test_what_rules_a_continuation_out_is_named(fields, reason):
    assert chat(**fields) is reason
    assert completion(**fields) is reason


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "best_of": 1, "logprobs": None},
        {"response_format": {"type": "text"}, "modalities": ["text"], "echo": False},
        {"tool_choice": "auto", "tools": None, "guided_json": None, "suffix": None},
        {"temperature": 0.7, "seed": 1, "presence_penalty": 1.0, "logit_bias": {"1": 2}},
    ],
)
def test_what_says_nothing_special_does_not_stand_in_the_way(fields):
    assert isinstance(chat(**fields), Wish)
    assert isinstance(completion(**fields), Wish)


@pytest.mark.parametrize(
    "path", [b"/v1/messages", b"/v1/responses", b"/v1/embeddings", b"/invocations", b"/infill"]
)
def test_other_streams_are_not_understood(path):
    assert judge(path, b"{}") is Reason.API


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": "?"}', b"{}", b'"x"', b"\xff"])
def test_what_is_no_chat_is_left_to_the_engine(body):
    assert judge(CHAT, body) is Reason.UNREADABLE_REQUEST


def test_prompts_of_several_texts_are_refused():
    assert completion(prompt=["a", "b"]) is Reason.BATCH
    assert completion(prompt=[[1, 2], [3]]) is Reason.BATCH
    assert completion(prompt=[]) is Reason.BATCH
    assert completion(prompt=[1, 2]).ids_prompt
    assert judge(b"/generate", b'{"text": ["a"]}') is Reason.BATCH


def test_images_and_tools_rule_out_tokens_only():
    image = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert not chat(messages=[{"role": "user", "content": image}]).plain_prompt
    assert not chat(tools=[{"type": "function", "function": {"name": "f"}}]).plain_prompt
    texts = [{"type": "text", "text": 'a "type": "image_url"'}]
    assert chat(messages=[{"role": "user", "content": texts}]).plain_prompt


def test_limits_are_found_where_each_api_has_them():
    assert chat(max_tokens=5).most == 5
    assert chat(max_tokens=5, max_completion_tokens=7).most == 7
    assert chat().most is None
    assert completion().most is None
    assert completion().default_most == 16
    assert completion(max_tokens=None).default_most is None
    wish = judge(b"/generate", b'{"text": "a", "sampling_params": {"max_new_tokens": 3}}')
    assert (wish.api, wish.most) == (Api.SGLANG, 3)
    assert judge(b"/generate", b'{"text": "a"}').default_most == 128
    wish = judge(b"/generate_stream", b'{"inputs": "a", "parameters": {"max_new_tokens": 3}}')
    assert (wish.api, wish.most) == (Api.TGI, 3)
    assert judge(b"/completion", b'{"prompt": "a", "n_predict": -1}').most is None
    assert judge(b"/completion", b'{"prompt": "a", "n_predict": 9}').most == 9


def test_what_the_client_wants_to_see_is_noted():
    wish = chat(
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        return_token_ids=True,
        stop="END",
        temperature=0,
    )
    assert (wish.usage, wish.usage_always, wish.token_ids) == (True, True, True)
    assert (wish.stops, wish.greedy) == (("END",), True)


NAMES = (
    *("n", "stop", "max_tokens", "tools", "logprobs", "prompt", "messages", "tool_choice"),
    *("stream_options", "sampling_params", "parameters", "inputs", "text", "input_ids"),
)
VALUES = st.sampled_from(
    [None, True, 0, -1, 2.5, 10**30, "", "x", [], [1], [[1]], ["x"], {}, {"a": 1}]
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_no_body_is_too_odd_to_be_judged(body):
    for path in (CHAT, COMPLETIONS, b"/generate", b"/generate_stream", b"/completion"):
        assert isinstance(judge(path, json.dumps(body).encode()), Wish | Reason)
