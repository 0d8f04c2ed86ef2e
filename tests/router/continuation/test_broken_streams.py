"""A stream that breaks anywhere, in any pieces, reads like one that did not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.continuation.budget import Budget
from router.continuation.continuation import Continuation, Ending
from router.continuation.eligibility import judge
from router.continuation.reasons import Reason
from router.continuation.resume import Method, Resume
from router.continuation.wish import Wish
from tests.fakes.streaming_engines import (
    Engine,
    LlamacppEngine,
    SglangEngine,
    TgiEngine,
    text_of,
)

CHAT = b"/v1/chat/completions"
COMPLETIONS = b"/v1/completions"
ENGINES = (Engine, SglangEngine, TgiEngine, LlamacppEngine)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def body_for(kind, **fields):
    fields = {"model": "m", "stream": True, "max_tokens": 40, **fields}
    if kind == "chat":
        return json.dumps({"messages": MESSAGES, **fields}).encode()
    return json.dumps({"prompt": "Tell me a story", **fields}).encode()


def path_of(kind):
    return CHAT if kind == "chat" else COMPLETIONS


def continuation_of(kind, body):
    wish = judge(path_of(kind), body)
    assert isinstance(wish, Wish), wish
    return Continuation(wish, Budget(1 << 24), 1 << 20)


def deliver(continuation, data, sizes):
    """Pass bytes in reads of these sizes, again and again."""
    got, at, turn = b"", 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        got += continuation.passed(data[at : at + size])
        at, turn = at + size, turn + 1
    return got


class Told:
    """What a client was told, and by which methods."""

    def __init__(self, data, methods):
        self.data = data
        self.methods = methods


def tell(kind, body, engine_class, cuts, sizes=(10**9,)):
    """The client's stream when the n-th replica breaks after the n-th of ``cuts`` bytes."""
    continuation = continuation_of(kind, body)
    engines = [engine_class(number) for number in range(len(cuts) + 1)]
    path, sent = path_of(kind), continuation.start(engine_class.name)
    got, methods = b"", []
    for engine, cut in zip(engines, [*cuts, None], strict=True):
        stream = b"".join(engine.stream(path, sent))
        got += deliver(continuation, stream[:cut], sizes)
        assert not continuation.broken
        if continuation.ended or (cut is None and continuation.complete):
            return Told(got, methods)
        assert cut is not None, "the last stream was not complete"
        resumed = continuation.resume(engine.name)
        if isinstance(resumed, Ending):
            return Told(got + resumed.data, methods)
        assert isinstance(resumed, Resume), resumed
        methods.append(resumed.method)
        path, sent = resumed.path or path_of(kind), resumed.body
    raise AssertionError("unreachable")


def check(kind, told, unbroken, *, usage):
    text, chunks = text_of(told, kind)
    wanted_text, wanted = text_of(unbroken, kind)
    assert text == wanted_text
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {wanted[0]["object"]}
    assert told.count(b"[DONE]") == 1
    assert told.endswith(b"data: [DONE]\n\n")
    assert reasons(chunks) == reasons(wanted)
    assert not any(choice.get("token_ids") for chunk in chunks for choice in chunk["choices"])
    assert not any(chunk.get("prompt_token_ids") for chunk in chunks)
    if usage:
        assert usages(chunks) == usages(wanted)


def reasons(chunks):
    return [
        choice["finish_reason"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]


def usages(chunks):
    return [chunk["usage"] for chunk in chunks if chunk.get("usage")]


def roles(data):
    return data.count(b'"role":"assistant"')


def unbroken_of(kind, body, engine_class):
    return b"".join(engine_class(0).stream(path_of(kind), body))


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("engine_class", ENGINES)
def test_a_cut_anywhere_is_not_seen(kind, engine_class):
    body = body_for(kind, max_tokens=12)
    unbroken = unbroken_of(kind, body, engine_class)
    length = len(
        b"".join(engine_class(0).stream(path_of(kind), sent_first(kind, body, engine_class)))
    )
    for cut in range(0, length + 1, 7):
        told = tell(kind, body, engine_class, [cut])
        check(kind, told.data, unbroken, usage=False)
        if kind == "chat" and not engine_class.role_in_each:
            assert roles(told.data) == 1


def sent_first(kind, body, engine_class):
    return continuation_of(kind, body).start(engine_class.name)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_cuts_of_any_number_in_any_reads_are_not_seen(data):
    kind = data.draw(st.sampled_from(["chat", "completion"]))
    engine_class = data.draw(st.sampled_from(ENGINES))
    fields = data.draw(
        st.fixed_dictionaries(
            {"max_tokens": st.integers(1, 60)},
            optional={
                "min_tokens": st.just(1),
                "stream_options": st.just({"include_usage": True}),
                "seed": st.integers(0, 9),
            },
        )
    )
    if kind == "completion":
        fields["prompt"] = data.draw(st.sampled_from(["Once", "A b c d", ("x " * 30).strip()]))
    body = body_for(kind, **fields)
    unbroken = unbroken_of(kind, body, engine_class)
    cuts = data.draw(st.lists(st.integers(0, len(unbroken)), max_size=3))
    sizes = data.draw(st.lists(st.integers(1, 700), min_size=1, max_size=4))
    told = tell(kind, body, engine_class, cuts, sizes)
    check(kind, told.data, unbroken, usage=False)


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_by_tokens_the_usage_is_that_of_the_unbroken_answer_whatever_was_cut(kind):
    body = body_for(kind, max_tokens=9, stream_options={"include_usage": True})
    unbroken = unbroken_of(kind, body, Engine)
    length = len(b"".join(Engine(0).stream(path_of(kind), sent_first(kind, body, Engine))))
    for cut in range(0, length + 1, 5):
        told = tell(kind, body, Engine, [cut])
        check(kind, told.data, unbroken, usage=True)
        assert set(told.methods) <= {Method.TOKENS, Method.AGAIN}


@pytest.mark.parametrize("engine_class", ENGINES)
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_usage_is_summed_over_three_replicas(kind, engine_class):
    body = body_for(kind, max_tokens=30, stream_options={"include_usage": True})
    unbroken = unbroken_of(kind, body, engine_class)
    third = len(unbroken) // 3
    told = tell(kind, body, engine_class, [third, third])
    check(kind, told.data, unbroken, usage=True)
    assert len(told.methods) == 2


KEEPS = ({}, {"include_stop_str_in_output": True}, {"no_stop_trim": True})


@pytest.mark.parametrize("engine_class", ENGINES)
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_stop_string_across_the_seam_still_stops(kind, engine_class):
    plain = body_for(kind, max_tokens=14)
    text, _ = text_of(unbroken_of(kind, plain, engine_class), kind)
    stop = " ".join(text.split(" ")[6:10])[1:-1]
    for keeps in KEEPS:
        fields = {"stop": [stop, "zzz"], "temperature": 0, **keeps}
        if engine_class is LlamacppEngine and keeps:
            continue  # it has no such field
        body = body_for(kind, max_tokens=14, **fields)
        unbroken = unbroken_of(kind, body, engine_class)
        assert reasons(text_of(unbroken, kind)[1])[0].startswith("stop")
        for cut in cuts_for(engine_class, unbroken):
            told = tell(kind, body, engine_class, [cut]).data
            got, chunks = text_of(told, kind)
            wanted, wanted_chunks = text_of(unbroken, kind)
            assert reasons(chunks) == reasons(wanted_chunks)
            assert told.count(b"[DONE]") == 1
            if engine_class is SglangEngine and "no_stop_trim" not in keeps:
                # it streams a part of the stop string, which is kept back behind a seam
                assert wanted.startswith(got)
                assert got.startswith(text[: text.index(stop)])
            else:
                assert got == wanted


def test_what_is_not_continued_says_why():
    continuation = continuation_of("chat", body_for("chat"))
    continuation.start("trtllm")
    stream = b"".join(LlamacppEngine().stream(CHAT, body_for("chat")))
    continuation.passed(stream[: len(stream) // 2])
    assert continuation.resume("trtllm") is Reason.ENGINE


def cuts_for(engine_class, unbroken):
    """Some cuts.

    Where llama.cpp has found a stop string, but the event that says so is lost, the text ends
    inside of a token: the simulated model goes on otherwise from there.
    """
    end = len(unbroken)
    if engine_class is LlamacppEngine:
        events = unbroken.split(b"\n\n")
        end -= sum(len(event) + 2 for event in events[-4:])
    return range(0, end + 1, 11)
