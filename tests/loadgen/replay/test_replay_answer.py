"""What a streamed answer is taken to say."""

from __future__ import annotations

from array import array

import pytest

from loadgen.replay.answer import StreamedAnswer
from tests.fakes.scripted_server import DONE, event, token, usage


def answer_of(*reads):
    """An answer whose reads come one second apart, from 0 on."""
    gaps_s = array("d")
    answer = StreamedAnswer(gaps_s)
    for second, read in enumerate(reads):
        answer.feed(read, float(second))
    return answer, list(gaps_s)


def test_the_opening_chunk_with_the_role_is_no_token():
    opening = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    answer, gaps_s = answer_of(opening, token(), token())
    assert (answer.first_token_s, answer.token_events, gaps_s) == (1.0, 2, [1.0])


def test_events_of_one_read_share_its_time():
    answer, gaps_s = answer_of(token(), token() + token())
    assert (answer.token_events, gaps_s) == (3, [1.0, 0.0])


@pytest.mark.parametrize(
    "choice",
    [
        {"text": " house"},
        {"delta": {"reasoning_content": "hm"}},
        {"delta": {"reasoning": "hm"}},
        {"delta": {"content": None, "tool_calls": [{"function": {"arguments": "{"}}]}},
    ],
)
def test_tokens_come_in_several_shapes(choice):
    answer, _ = answer_of(event({"choices": [choice]}))
    assert answer.token_events == 1


def test_an_answer_without_text_has_its_first_token_at_its_end():
    answer, _ = answer_of(token(""), token("", finish_reason="stop"))
    assert (answer.first_token_s, answer.token_events, answer.finished) == (1.0, 1, True)


def test_usage_and_the_end():
    answer, _ = answer_of(token(finish_reason="length"), usage(100, 1, cached_tokens=64), DONE)
    assert (answer.usage.prompt_tokens, answer.usage.cached_tokens) == (100, 64)
    assert (answer.finished, answer.done_s, answer.error) == (True, 2.0, None)


def test_a_server_may_keep_silent_about_its_cache():
    answer, _ = answer_of(usage(100, 1))
    assert answer.usage.cached_tokens is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"error": {"message": "out of memory", "code": 500}}, "out of memory"),
        ({"error": "out of memory", "error_type": "overloaded"}, "out of memory"),
        ({"choices": [{"delta": {}, "finish_reason": "abort"}]}, "finish_reason abort"),
    ],
)
def test_errors_inside_the_stream_are_seen(data, message):
    answer, _ = answer_of(token(), event(data))
    assert answer.error == message


@pytest.mark.parametrize("data", [b"{", b"[1]", b'{"choices": 7}', b"\xff", b""])
def test_events_that_are_no_events_are_seen(data):
    answer, _ = answer_of(b"data: " + data + b"\n\n")
    assert answer.malformed


def test_a_wrong_event_before_does_not_hide_what_follows():
    answer, _ = answer_of(b"data: nonsense\n\n", token(), DONE)
    assert (answer.token_events, answer.done_s) == (1, 2.0)
