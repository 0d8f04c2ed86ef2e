"""A stream whose first token is late is tried elsewhere as well; only one of the two goes on."""

from __future__ import annotations

import pytest
from house import House
from hypothesis import given
from hypothesis import strategies as st

from policies.base import RequestFacts
from policies.least_requests import LeastRequests
from router.core.actions import Cancel, Hedge, Send
from router.core.dispatcher import Limits
from router.core.request import Failure, Request, State

AFTER_S = 2.0


class Hedging(House):
    """A house whose dispatcher hedges."""

    def __init__(self, *names, after_s=AFTER_S):
        super().__init__(*names, policy=LeastRequests(), limits=Limits(hedge_after_s=after_s))

    def send(self, **facts):
        request = Request("q", RequestFacts(**({"model": "m", "streamed": True} | facts)), self.now)
        (action,) = self.dispatcher.request_arrived(request, self.now)
        assert isinstance(action, Send)
        return action.attempt

    def hedged(self):
        first = self.send()
        (action,) = self.after(AFTER_S, at_first=True)
        assert isinstance(action, Hedge)
        assert action.attempt.replica is not first.replica
        return first, action.attempt

    def finish(self, attempt):
        assert self.dispatcher.headers_received(attempt, 200, self.now) == ()
        self.dispatcher.progress(attempt, 1, self.now)
        self.dispatcher.attempt_ended(attempt, self.now)
        self.check_all_is_over()


@pytest.mark.parametrize("second_wins", [True, False])
def test_the_first_to_answer_goes_on_and_the_other_is_dropped(second_wins):
    house = Hedging("a", "b")
    first, second = house.hedged()
    winner, loser = (second, first) if second_wins else (first, second)
    (action,) = house.dispatcher.answer_begins(winner, house.now)
    assert isinstance(action, Cancel)
    assert action.attempt is loser
    assert (loser.replica.in_flight, winner.replica.in_flight) == (0, 1)
    house.finish(winner)
    assert house.ended == [(State.DONE, winner.replica.name)]
    counters = house.dispatcher.counters
    assert (counters.hedged, counters.hedges_won) == (1, int(second_wins))


@pytest.mark.parametrize("second_fails", [True, False])
@pytest.mark.parametrize("how", [*Failure, 429, 500, 503, 400])
def test_where_one_fails_the_other_goes_on_alone(second_fails, how):
    house = Hedging("a", "b", "c")
    first, second = house.hedged()
    failing, other = (second, first) if second_fails else (first, second)
    if isinstance(how, Failure):
        actions = house.dispatcher.attempt_failed(failing, how, house.now)
    else:
        actions = house.dispatcher.headers_received(failing, how, house.now)
    assert list(actions) == []
    request = failing.request
    assert (request.attempt, request.hedge) == (other, None)
    assert not request.relayed
    house.finish(other)


def test_when_the_second_fails_as_well_it_is_a_retry_like_any():
    house = Hedging("a", "b", "c")
    first, second = house.hedged()
    house.dispatcher.attempt_failed(second, Failure.CONNECT, house.now)
    (action,) = house.dispatcher.attempt_failed(first, Failure.RESET, house.now)
    assert isinstance(action, Send)
    assert action.attempt.replica not in {first.replica, second.replica}


def test_a_client_that_leaves_ends_both():
    house = Hedging("a", "b")
    first, second = house.hedged()
    actions = house.dispatcher.client_gone(first.request, house.now)
    assert {action.attempt for action in actions} == {first, second}
    assert all(isinstance(action, Cancel) for action in actions)
    house.check_all_is_over()
    assert house.ended == [(State.GONE, first.replica.name)]


def test_a_first_token_in_time_is_no_reason():
    house = Hedging("a", "b")
    attempt = house.send()
    assert house.after(AFTER_S - 0.25, at_first=True) == []
    house.dispatcher.headers_received(attempt, 200, house.now)
    house.dispatcher.progress(attempt, 1, house.now)
    assert house.after(1.0, at_first=True) == []


def test_a_token_that_is_as_late_as_expected_is_no_reason():
    house = Hedging("a", "b")
    house.send().predicted_ttft_s = 3.0
    assert house.after(5.75, at_first=True) == []
    assert isinstance(house.after(0.25, at_first=True)[0], Hedge)


@pytest.mark.parametrize("facts", [{"streamed": False}])
def test_answers_in_one_piece_are_tried_once(facts):
    house = Hedging("a", "b")
    house.send(**facts)
    assert house.after(10.0, at_first=True) == []


def test_nobody_is_tried_twice_and_nobody_else_may_be_there():
    house = Hedging("a")
    house.send()
    assert house.after(5.0, at_first=True) == []
    off = Hedging("a", "b", after_s=0.0)
    off.send()
    assert off.after(5.0, at_first=True) == []


def test_second_tries_keep_to_the_budget_of_retries():
    house = Hedging("a", "b")
    for _ in range(10):
        house.send()
    house.now += AFTER_S
    actions = house.dispatcher.tick(house.now)
    assert [type(action) for action in actions] == [Hedge] * 3
    assert house.dispatcher.budget.retrying == 3


def test_a_replica_that_stalls_leaves_the_request_to_the_other():
    house = Hedging("a", "b")
    first, second = house.hedged()
    second.replica.silence.heard(house.now + 100)
    actions = house.after(60.0, at_first=True)
    cancelled = [action.attempt for action in actions if isinstance(action, Cancel)]
    assert cancelled == [first]
    assert first.request.attempt is second
    house.finish(second)


def befall(house, request, event, attempt):
    if event == "tick":
        house.after(AFTER_S, at_first=True)
    elif event == "gone":
        house.dispatcher.client_gone(request, house.now)
    elif attempt is None:
        return
    elif event == "fail":
        house.dispatcher.attempt_failed(attempt, Failure.RESET, house.now)
    elif event == "err":
        house.dispatcher.headers_received(attempt, 503, house.now)
        if request.attempt is attempt:  # it is relayed
            house.dispatcher.attempt_ended(attempt, house.now)
    else:
        if request.hedge is not None:
            house.dispatcher.answer_begins(attempt, house.now)
        house.finish(attempt)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["begin", "fail", "err", "gone", "tick"]), st.booleans()),
        max_size=12,
    ),
    replicas=st.integers(1, 4),
)
def test_whatever_happens_in_whatever_order_the_books_are_right(events, replicas):
    house = Hedging(*"abcd"[:replicas])
    request = house.send().request
    for event, of_hedge in events:
        if request.state.ended:
            break
        befall(house, request, event, request.hedge if of_hedge else request.attempt)
        open_attempts = [a for a in (request.attempt, request.hedge) if a is not None]
        in_flight = [replica.in_flight for replica in house.fleet.replicas.values()]
        assert sum(in_flight) == len(open_attempts)
        assert request.attempt is not None or request.hedge is None
        assert len({a.replica for a in open_attempts}) == len(open_attempts)
    if not request.state.ended:
        house.dispatcher.client_gone(request, house.now)
    house.check_all_is_over()
    assert len(house.ended) == 1
