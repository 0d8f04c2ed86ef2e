"""What the next replica is asked for."""

import json

import pytest

from router.continuation.budget import Budget
from router.continuation.continuation import Continuation, Ending
from router.continuation.eligibility import judge
from router.continuation.reasons import Reason
from router.continuation.resume import Method
from tests.fakes.streaming_engines import DONE, Engine, SglangEngine, encoded, text_of

CHAT = b"/v1/chat/completions"
COMPLETIONS = b"/v1/completions"
MESSAGES = [{"role": "user", "content": "Why?"}]


def begun(path, given, engine, events):
    """A continuation whose first stream breaks after so many events."""
    body = json.dumps({"stream": True, **given}).encode()
    continuation = Continuation(judge(path, body), Budget(1 << 20), 1 << 20)
    stream = engine.stream(path, continuation.start(engine.name))
    continuation.passed(b"".join(stream[:events]))
    return continuation


def resumed(path, given, engine, events, name=None):
    resume = begun(path, given, engine, events).resume(name or engine.name)
    return resume, json.loads(resume.body)


def test_vllm_is_asked_for_tokens_and_goes_on_with_them():
    given = {
        "messages": MESSAGES,
        "max_tokens": 20,
        "min_tokens": 8,
        "seed": 3,
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
        "logprobs": False,
        "model": "m",
    }
    resume, body = resumed(CHAT, given, Engine(), 6)
    assert (resume.method, resume.path) == (Method.TOKENS, COMPLETIONS)
    assert body["max_tokens"] == 15
    assert body["min_tokens"] == 3
    assert body["return_token_ids"] is True
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert {key: body[key] for key in ("seed", "temperature", "model", "stream")} == {
        "seed": 3,
        "temperature": 0.5,
        "model": "m",
        "stream": True,
    }
    assert not {"messages", "logprobs"} & set(body)
    prompt = json.loads(Engine().stream(CHAT, b'{"messages": [{"role": "user", "content": "Why?"}], "return_token_ids": true}')[0][5:])["prompt_token_ids"]  # noqa: E501  # fmt: skip
    assert body["prompt"][: len(prompt)] == prompt
    assert len(body["prompt"]) == len(prompt) + 5


def test_a_chat_without_a_limit_goes_on_without_one():
    _, body = resumed(CHAT, {"messages": MESSAGES}, Engine(), 6)
    assert body["max_tokens"] is None


def test_sglang_goes_on_with_the_last_message():
    given = {"messages": MESSAGES, "max_completion_tokens": 20}
    resume, body = resumed(CHAT, given, SglangEngine(), 6)
    assert (resume.method, resume.path) == (Method.TEXT, None)
    said, _ = text_of(b"".join(SglangEngine().stream(CHAT, json.dumps(given).encode())[:6]), "chat")
    assert body["messages"] == [*MESSAGES, {"role": "assistant", "content": said}]
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert body["max_completion_tokens"] == 15
    assert "max_tokens" not in body


def test_a_message_that_the_client_began_is_one_with_the_answer():
    begun_by_client = [*MESSAGES, {"role": "assistant", "content": "Because"}]
    given = {
        "messages": begun_by_client,
        "continue_final_message": True,
        "add_generation_prompt": False,
        "max_tokens": 9,
    }
    _, body = resumed(CHAT, given, SglangEngine(), 4)
    assert len(body["messages"]) == 2
    assert body["messages"][1]["content"].startswith("Because ")


def test_white_space_at_the_seam_is_written_again_but_not_told_again():
    continuation = told("chat", ["The sea", " is ", " "])
    body = json.loads(continuation.resume("tgi").body)
    assert body["messages"][-1]["content"] == "The sea is"
    got = continuation.passed(chunk("chat", "  ") + chunk("chat", "a vast", "stop") + DONE)
    assert text_of(got, "chat")[0] == "a vast"


def test_white_space_that_is_not_written_again_is_not_missed():
    continuation = told("chat", ["The sea", " is\n\n"])
    continuation.resume("tgi")
    got = continuation.passed(chunk("chat", "\n") + chunk("chat", " x", "stop") + DONE)
    assert text_of(got, "chat")[0] == " x"


def test_nothing_but_white_space_is_asked_for_anew():
    continuation = told("chat", ["\n"])
    resume = continuation.resume("tgi")
    assert resume.method is Method.AGAIN
    got = continuation.passed(chunk("chat", "\nyes", "stop") + DONE)
    assert text_of(got, "chat")[0] == "yes"


def chunk(kind, text, finish=None, **more):
    said = {"delta": {"content": text}} if kind == "chat" else {"text": text}
    choice = {"index": 0, **said, "finish_reason": finish, **more}
    return encoded({"id": "i", "created": 1, "model": "m", "choices": [choice]})


def told(kind, texts, engine="tgi", **given):
    path = CHAT if kind == "chat" else COMPLETIONS
    prompt = {"messages": MESSAGES} if kind == "chat" else {"prompt": "Once"}
    body = json.dumps({"stream": True, **prompt, **given}).encode()
    continuation = Continuation(judge(path, body), Budget(1 << 20), 1 << 20)
    continuation.start(engine)
    continuation.passed(b"".join(chunk(kind, text) for text in texts))
    return continuation


def test_an_answer_of_full_length_only_needs_its_end():
    continuation = told(
        "chat", ["a", "b", "c"], max_tokens=3, stream_options={"include_usage": True}
    )
    ending = continuation.resume("tgi")
    assert isinstance(ending, Ending)
    _, (only,) = text_of(ending.data, "chat")
    assert only["choices"][0]["finish_reason"] == "length"
    assert (only["id"], only["object"]) == ("i", "chat.completion.chunk")
    assert ending.data.endswith(DONE)
    assert continuation.complete


def test_an_answer_that_has_said_why_it_ended_only_needs_the_end_mark():
    continuation = told("chat", ["a"])
    continuation.passed(chunk("chat", "b", "stop"))
    assert continuation.complete
    assert continuation.resume("tgi") == Ending(DONE)


def test_a_complete_answer_needs_nothing():
    continuation = told("completion", ["a"])
    continuation.passed(chunk("completion", "b", "stop") + DONE)
    assert continuation.resume("tgi") == Ending(b"")


def test_a_tool_call_that_began_is_refused_but_a_tool_alone_is_not():
    tools = [{"type": "function", "function": {"name": "f"}}]
    continuation = told("chat", ["Let me see"], "vllm", tools=tools)
    body = json.loads(continuation.resume("vllm").body)
    assert body["tools"] == tools
    assert body["messages"][-1]["content"] == "Let me see"
    call = {"id": "i", "choices": [{"delta": {"tool_calls": [{"index": 0}]}, "index": 0, "finish_reason": None}]}  # noqa: E501  # fmt: skip
    got = continuation.passed(encoded(call))
    assert b"tool_calls" in got
    assert continuation.resume("vllm") is Reason.TOOL_CALL


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_refused(field):
    continuation = told("chat", [])
    delta = {"choices": [{"delta": {field: "hm"}, "index": 0, "finish_reason": None}], "id": "i"}
    continuation.passed(encoded(delta))
    assert continuation.resume("vllm") is Reason.REASONING


def test_thoughts_in_the_text_are_refused_by_text():
    assert told("chat", ["<think>a</think>b"]).resume("sglang") is Reason.REASONING


@pytest.mark.parametrize("engine", ["trtllm", "generic", None])
def test_engines_that_cannot_go_on_with_a_chat_go_on_with_a_text(engine):
    assert told("chat", ["a"], engine).resume(engine) is Reason.ENGINE
    body = json.loads(told("completion", ["a"], engine, max_tokens=5).resume(engine).body)
    assert (body["prompt"], body["max_tokens"]) == ("Oncea", 4)


def test_an_engine_may_change_between_attempts():
    continuation = begun(CHAT, {"messages": MESSAGES, "max_tokens": 20}, Engine(), 8)
    assert continuation.resume("trtllm") is Reason.ENGINE
    assert continuation.resume("vllm").method is Method.TOKENS
    assert continuation.resume("sglang").method is Method.TOKENS
    by_text = continuation.resume("tgi")
    assert by_text.method is Method.TEXT
    assert json.loads(by_text.body)["max_tokens"] == 13


def test_another_start_begins_anew():
    body = json.dumps({"messages": MESSAGES, "stream": True}).encode()
    continuation = Continuation(judge(CHAT, body), Budget(1 << 20), 1 << 20)
    assert json.loads(continuation.start("vllm"))["return_token_ids"] is True
    assert continuation.start("llamacpp") == body


def test_a_client_that_asks_for_tokens_gets_those_of_both_replicas():
    given = {"messages": MESSAGES, "max_tokens": 10, "return_token_ids": True}
    body = json.dumps({"stream": True, **given}).encode()
    unbroken = text_of(b"".join(Engine().stream(CHAT, body)), "chat")[1]
    continuation = Continuation(judge(CHAT, body), Budget(1 << 20), 1 << 20)
    assert continuation.start("vllm") == body
    got = continuation.passed(b"".join(Engine().stream(CHAT, body)[:5]))
    resume = continuation.resume("vllm")
    got += continuation.passed(b"".join(Engine(1).stream(resume.path, resume.body)))

    def ids(chunks):
        return [
            token
            for one in chunks
            for choice in one["choices"]
            for token in choice.get("token_ids") or []
        ]

    chunks = text_of(got, "chat")[1]
    assert ids(chunks) == ids(unbroken)
    assert (
        sum("prompt_token_ids" in one and one["prompt_token_ids"] is not None for one in chunks)
        == 1
    )


def test_a_stream_that_writes_something_else_is_dropped_and_text_goes_on():
    given = {"messages": MESSAGES, "max_tokens": 60, "temperature": 0, "stop": ["zzzzzzzzzzzzzzzz"]}
    continuation = begun(CHAT, given, Engine(), 12)
    resume = continuation.resume("vllm")
    assert resume.method is Method.TOKENS
    other = chunk("completion", "!?!?!", token_ids=[1])
    assert continuation.passed(other) == b""
    assert continuation.broken
    assert continuation.resume("vllm").method is Method.TEXT


def test_an_error_in_the_second_stream_breaks_it_too():
    continuation = told("chat", ["one"], "tgi")
    continuation.resume("tgi")
    assert text_of(continuation.passed(chunk("chat", " two")), "chat")[0] == " two"
    assert continuation.passed(b'data: {"error": {"message": "x"}}\n\n' + DONE) == b""
    assert continuation.broken
    assert json.loads(continuation.resume("tgi").body)["messages"][-1]["content"] == "one two"


def test_a_leak_of_the_prompt_is_not_told():
    said = "東京へ行きます。" * 70
    ids = list(range(1, 400))
    body = json.dumps({"messages": MESSAGES, "stream": True}).encode()
    continuation = Continuation(judge(CHAT, body), Budget(1 << 20), 1 << 20)
    continuation.start("vllm")
    first = {"id": "i", "prompt_token_ids": [5, 6], "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}  # noqa: E501  # fmt: skip
    continuation.passed(encoded(first) + chunk("chat", said, token_ids=ids))
    resume = continuation.resume("vllm")
    assert json.loads(resume.body)["prompt"] == [5, 6, *ids]
    leak = chunk("completion", f"<system>be brief</system>{said}駅", token_ids=[9])
    got = continuation.passed(leak + chunk("completion", "まで", "stop", token_ids=[10]))
    assert text_of(got, "chat")[0] == "駅まで"
