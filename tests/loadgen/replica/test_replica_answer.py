"""The composed answer: where it ends, and what each token adds to its text."""

from hypothesis import given
from hypothesis import strategies as st

from loadgen import tokens
from loadgen.engine import language_model
from loadgen.replica.answer import Limits, compose

STATE = language_model.read(language_model.start("m"), [1, 2, 3])


def answer(**limits):
    return compose(STATE, 3, Limits(**{"most": 60, "ignore_eos": True, **limits}))


WHOLE = "".join(answer().pieces)


@given(st.data(), st.integers(0, 40), st.booleans())
def test_a_stop_string_ends_the_answer_at_the_token_that_completes_it(data, least, included):
    start = data.draw(st.integers(0, len(WHOLE) - 1))
    stop = WHOLE[start : start + data.draw(st.integers(1, 20))]
    got = answer(stop=(stop,), least=least, include_stop=included)
    text = "".join(got.pieces)
    assert len(got.pieces) == len(got.tokens)
    if got.finish_reason == "length":
        assert text == WHOLE
        return
    assert got.stop_reason == stop
    assert len(got.tokens) > least
    assert WHOLE.startswith(text)
    assert (text.endswith(stop)) if included else WHOLE[len(text) :].startswith(stop)
    end = len(text) + (0 if included else len(stop))
    assert len(tokens.decode(got.tokens[:-1])) < end <= len(tokens.decode(got.tokens))


@given(st.sets(st.integers(0, 4095), max_size=5), st.integers(0, 30), st.integers(0, 59))
def test_a_stop_token_ends_the_answer_and_adds_no_text(others, least, index):
    base = answer().tokens
    stops = frozenset(others | {base[index]})
    got = answer(stop_token_ids=stops, least=least)
    first = next((i for i, t in enumerate(base) if t in stops and i >= least - 1), None)
    if first is None:
        assert got.finish_reason == "length"
    else:
        assert got.tokens == base[: first + 1]
        assert (got.finish_reason, got.stop_reason) == ("stop", base[first])
        assert "".join(got.pieces) == tokens.decode(base[:first])


def test_the_first_of_several_stops_counts():
    words = WHOLE.split(" ")
    got = answer(stop=(words[20], words[10], words[10][:2]))
    assert got.stop_reason == words[10]
    assert len(got.tokens) == 10
    both = answer(stop=(words[20],), stop_token_ids=frozenset({got.tokens[4]}))
    assert both.stop_reason == got.tokens[4]


def test_its_own_end_has_a_token_and_no_text():
    for number in range(20):
        state = language_model.read(STATE, [number])
        got = compose(state, 4, Limits(most=4000))
        assert got.finish_reason == "stop"
        assert got.stop_reason is None
        assert got.tokens[-1] == tokens.Special.END_OF_TEXT
        assert "".join(got.pieces) == tokens.decode(got.tokens[:-1])
