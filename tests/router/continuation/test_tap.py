import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.continuation.budget import Budget
from router.continuation.events import payload, split, whole_until
from router.continuation.reasons import Reason
from router.continuation.tap import Tap
from router.continuation.wish import Api

ERROR = b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(text, finish=None, **more):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, **more}
    data = {"id": "c", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def tap_of(strips_ids=False, total=1 << 20, stream=1 << 20, api=Api.CHAT):
    return Tap(api, strips_ids=strips_ids, budget=Budget(total), stream_bytes=stream)


def test_whole_events_go_on_as_they_came():
    tap = tap_of()
    data = chunk("a") + chunk("b")
    assert tap.passed(data) is data


def test_half_an_event_waits_for_its_other_half():
    tap = tap_of()
    event = chunk("abc")
    assert tap.passed(event[:20]) == b""
    assert tap.passed(event[20:] + event[:5]) == event
    assert tap.passed(event[5:]) == event


def test_half_an_event_is_not_part_of_what_the_client_has():
    tap = tap_of()
    tap.passed(chunk("one") + chunk("two")[:30])
    tap.settle()
    assert tap.record.text == "one"


@given(
    texts=st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=30),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    ends=st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
def test_nothing_is_lost_added_or_reordered_however_it_was_cut(texts, sizes, ends):
    data = b"".join(chunk(text).replace(b"\n\n", ends) for text in texts)
    tap, got, at, turn = tap_of(), b"", 0, 0
    while at < len(data):
        got += tap.passed(data[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    assert got == data
    tap.settle()
    assert tap.record.text == "".join(texts)
    assert tap.record.tokens == len(texts)


@pytest.mark.parametrize("apart", [False, True])
def test_an_error_in_the_stream_is_not_passed_on(apart):
    tap = tap_of()
    reads = [chunk("one"), ERROR, DONE] if apart else [chunk("one") + ERROR + DONE]
    assert b"".join(map(tap.passed, reads)) == chunk("one")
    assert tap.broken
    tap.settle()
    assert tap.record.text == "one"


def test_an_abort_is_a_failure_too():
    tap = tap_of()
    assert tap.passed(chunk("one") + chunk("", "abort")) == chunk("one")
    assert tap.broken


def test_done_without_a_reason_to_finish_is_a_failure():
    tap = tap_of()
    assert tap.passed(chunk("one") + DONE) == chunk("one")
    assert tap.broken


def test_an_answer_may_speak_of_errors_and_of_the_end():
    tap = tap_of()
    said = chunk('{"error": 1}') + chunk("data: [DONE]") + chunk("[DONE]")
    assert tap.passed(said) == said
    assert tap.passed(chunk("[DONE]\n\n")) == chunk("[DONE]\n\n")
    assert not tap.broken
    end = chunk("", "stop") + DONE
    assert tap.passed(end) == end
    assert tap.complete


def test_the_end_is_seen_through_usage_and_comments():
    tap = tap_of()
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    for data in (chunk("a"), chunk("b", "length"), b": ping\n\n", usage, DONE):
        assert tap.passed(data) == data
    assert not tap.broken
    assert tap.complete


def test_tokens_that_the_client_did_not_ask_for_are_taken_out():
    tap = tap_of(strips_ids=True)
    told = tap.passed(
        chunk("a", token_ids=[1], prompt_token_ids=[7, 8]) + chunk('"token_ids":[5]', token_ids=[])
    )
    chunks = [json.loads(payload(event)) for event in split(told)]
    assert [c["choices"][0].get("token_ids") for c in chunks] == [None, None]
    assert chunks[0]["choices"][0]["prompt_token_ids"] is None
    assert chunks[1]["choices"][0]["delta"]["content"] == '"token_ids":[5]'
    tap.settle()
    assert tap.record.ids.tolist() == [1]
    assert tap.record.prompt_ids == b"[7,8]"


@st.composite
def reads(draw):
    """What a stream may come in: events of one shape mostly, some odd ones, some cut or joined."""
    ids = st.lists(st.integers(0, 150_000), max_size=3)
    words = st.sampled_from(
        ["a", "", "é", '"token_ids":[5]', '"finish_reason":null', "[", "]", "\n"]
    )
    events = []
    for _ in range(draw(st.integers(1, 12))):
        more = {"token_ids": draw(ids)} if draw(st.booleans()) else {}
        if draw(st.integers(0, 9)) == 0:
            more["prompt_token_ids"] = draw(ids)
        events.append(chunk(draw(words), draw(st.sampled_from([None, None, None, "stop"])), **more))
        if draw(st.integers(0, 5)) == 0:
            events.append(draw(st.sampled_from([b": ping\n\n", b"data:\n\n", events[-1]])))
    data, at, cut = b"".join(events), 0, []
    while at < len(data):
        whole = len(data[at:].split(b"\n\n")[0]) + 2
        size = draw(st.sampled_from([whole, whole, whole, 30, 200, 500]))
        cut.append(data[at : at + size])
        at += size
    return data, cut


@given(reads(), st.booleans())
def test_what_the_client_gets_does_not_depend_on_what_came_before(said, strips):
    data, cut = said
    tap = tap_of(strips_ids=strips)
    got = b"".join(map(tap.passed, cut))
    assert got == (re.sub(rb'token_ids":\[[0-9,]*\]', b'token_ids":null', data) if strips else data)
    tap.settle()
    texts = [json.loads(payload(event)) for event in split(data) if payload(event)]
    assert tap.record.text == "".join(c["choices"][0]["delta"]["content"] for c in texts)


@pytest.mark.parametrize("strips", [False, True])
def test_an_error_after_many_usual_events_is_not_passed_on(strips):
    tap = tap_of(strips_ids=strips)
    for _ in range(5):
        assert tap.passed(chunk("a", token_ids=[3]))
    assert tap.passed(ERROR + chunk("a", token_ids=[3])) == b""
    assert tap.broken


def test_much_is_packed_and_read_all_the_same():
    tap = tap_of(stream=60_000)
    texts = [f"w{n} " for n in range(3000)]
    for text in texts:
        tap.passed(chunk(text))
    assert tap.lost is None
    tap.settle()
    assert tap.record.text == "".join(texts)


def test_a_stream_that_outgrows_its_share_is_relayed_all_the_same():
    tap = tap_of(stream=4_000)
    data = [chunk(f"{n * 7919 % 10007}") for n in range(2000)]
    assert b"".join(map(tap.passed, data)) == b"".join(data)
    assert tap.lost is Reason.STREAM_BYTES
    assert tap._budget.held_bytes == 0
    assert tap.passed(ERROR) == ERROR
    assert not tap.broken


def test_streams_share_a_budget_and_give_it_back():
    budget = Budget(40_000)
    taps = [Tap(Api.CHAT, strips_ids=False, budget=budget, stream_bytes=1 << 20) for _ in range(9)]
    for _ in range(20):
        for tap in taps:
            assert tap.passed(chunk("x")) == chunk("x")
    assert {tap.lost for tap in taps} == {None, Reason.TOTAL_BYTES}
    assert 0 < budget.held_bytes <= 40_000
    for tap in taps:
        tap.close()
    assert budget.held_bytes == 0


def test_what_is_no_chunk_loses_the_continuation_not_the_stream():
    tap = tap_of()
    odd = b"data: {nonsense}\n\n"
    assert tap.passed(chunk("a") + odd) == chunk("a") + odd
    tap.settle()
    assert tap.lost is Reason.UNREADABLE_STREAM


def test_an_event_without_end_is_passed_on_at_last():
    tap = tap_of()
    endless = b"data: " + b"x" * (2 << 20)
    assert tap.passed(endless) == endless
    assert tap.lost is Reason.UNREADABLE_STREAM


@given(st.lists(st.sampled_from([b"data: a", b"\n", b"\r\n", b"\r", b": c", b"\n\n"]), max_size=30))
def test_events_end_where_blank_lines_are(parts):
    data = b"".join(parts)
    end = whole_until(data)
    assert not whole_until(data[end:])
    lines = data[:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert b"".join(split(data[:end])).count(b"a") == lines.count(b"a")
