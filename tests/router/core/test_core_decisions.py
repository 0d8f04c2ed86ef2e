import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Choice, Estimate, RequestFacts
from router.core.decisions import MAX_CHAIN, MAX_ESTIMATES, MAX_TEXT, Decisions
from router.core.fleet import FleetState
from router.core.request import Attempt, Request

REPLICA = FleetState().add("r1:8000", "http://r1:8000")
ESTIMATES = tuple(
    Estimate(f"10.0.0.{n}:8000", 0.1 * n, 0.2, 3.0, 0.0, 64 * n, 0.01, 1.5) for n in range(12)
)


def attempt_of(request_id, *, model="m", at_s=5.0, tokens=100):
    request = Request(request_id, RequestFacts(model=model, prompt_tokens=tokens), 4.0)
    request.attempts = 1
    return Attempt(request, REPLICA, at_s)


def choice(reason="least_cost", ttft_s=0.25, estimates=ESTIMATES[:2]):
    return Choice(REPLICA, reason, ttft_s=ttft_s, estimates=estimates)


def test_a_decision_is_told_with_how_it_turned_out():
    decisions = Decisions()
    attempt = attempt_of("abc")
    attempt.predicted_e2e_s = 4.5
    number = decisions.record(attempt, choice(), 7, 0.5)
    told = decisions.get(number)
    assert (told.request_id, told.at_s, told.model, told.prompt_tokens) == ("abc", 5.0, "m", 100)
    assert (told.attempt, told.chosen, told.reason, told.candidates) == (
        1,
        "r1:8000",
        "least_cost",
        7,
    )
    assert (told.held_s, told.ttft_s, told.e2e_s) == (0.5, 0.25, 4.5)
    assert told.estimates == ESTIMATES[:2]
    assert isinstance(told.estimates[0], Estimate)
    assert (told.seen_ttft_s, told.took_s, told.outcome) == (None, None, None)
    decisions.first_token(number, 0.31)
    decisions.ended(number, 2.5, "200")
    told = decisions.get(number)
    assert (told.seen_ttft_s, told.took_s, told.outcome) == (0.31, 2.5, "200")
    assert decisions.of("abc") == decisions.last(5) == [told]
    assert decisions.of("abd") == []


ids = st.sampled_from(["a", "b", "c", "a longer name"])


@given(st.lists(ids, max_size=40), st.integers(1, 8))
def test_the_last_ones_are_kept_and_found_by_their_request(names, capacity):
    decisions = Decisions(capacity)
    for at_s, name in enumerate(names):
        decisions.record(attempt_of(name, at_s=float(at_s)), choice(), 1, 0.0)
    kept = list(enumerate(names))[-capacity:]
    assert len(decisions) == len(kept)
    assert [(d.at_s, d.request_id) for d in decisions.last(99)] == kept[::-1]
    assert [d.at_s for d in decisions.last(2)] == [at_s for at_s, _ in kept[::-1][:2]]
    for name in set(names):
        assert [d.at_s for d in decisions.of(name)] == [at_s for at_s, n in kept if n == name]
    assert not decisions.last(0)
    if len(names) > capacity:
        assert decisions.get(0) is None
    assert decisions.get(len(names)) is None


def test_what_is_kept_no_more_takes_no_news():
    decisions = Decisions(2)
    first, *_ = [decisions.record(attempt_of(n), choice(), 1, 0.0) for n in "abc"]
    decisions.first_token(first, 9.0)
    decisions.ended(first, 9.0, "gone")
    assert [(d.seen_ttft_s, d.outcome) for d in decisions.last(2)] == [(None, None)] * 2


def test_memory_is_bounded_whatever_names_clients_make_up():
    bound = 64 * 1024
    decisions = Decisions(1000, bound)
    for number in range(300):
        attempt = attempt_of(f"{number}", model="m" * 100_000)
        decisions.record(attempt, choice("why " * 1000, estimates=ESTIMATES), 1, 0.0)
        assert decisions.bytes <= bound
    assert 20 < len(decisions) < 300
    told = decisions.last(1)[0]
    assert len(told.model) == len(told.reason) == MAX_TEXT
    assert len(told.estimates) == MAX_ESTIMATES
    empty = Decisions(1000, 1)
    empty.record(attempt_of("a"), choice(), 1, 0.0)
    assert len(empty) == 1, "the last one is always kept"


def test_the_bytes_stated_are_those_taken():
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        decisions = Decisions()
        for number in range(12_000):
            kept = decisions.record(
                attempt_of(f"{number:032x}"), choice(estimates=ESTIMATES), 8, 0.0
            )
            decisions.ended(kept, 1.0, str(200 + number % 300))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(decisions) == 10_000
    assert 0.75 * decisions.bytes < taken < 1.05 * decisions.bytes


@pytest.mark.parametrize(
    "estimates", [None, 5, ((1, 2),), (Estimate("r", queue_s=object()),), (10**400,)]
)
def test_a_plugin_may_give_any_estimates(estimates):
    decisions = Decisions()
    decisions.record(attempt_of("x"), choice(estimates=estimates), 3, 0.0)
    told = decisions.last(1)[0]
    assert (told.request_id, told.chosen, told.candidates) == ("x", "r1:8000", 3)
    assert told.estimates == ()


def test_half_a_character_in_a_name_loses_no_decision():
    decisions = Decisions()
    decisions.record(attempt_of("x", model="\ud800m"), choice(), 3, 0.0)
    assert decisions.of("x")[0].model == "\\ud800m"


def test_one_id_for_all_requests_shows_the_last_of_them():
    decisions = Decisions()
    for at_s in range(100):
        decisions.record(attempt_of("same", at_s=float(at_s)), choice(), 1, 0.0)
    assert [d.at_s for d in decisions.of("same")] == list(range(100 - MAX_CHAIN, 100))
