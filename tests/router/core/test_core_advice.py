"""When an engine's token budget costs the streams beside a prompt their objective."""

from __future__ import annotations

import logging

import pytest
from house import House

from policies.base import RequestFacts
from policies.forecast import Clock, Forecast
from policies.least_requests import LeastRequests
from policies.speed import Speed
from router.core.advice import LEAST_TOKENS, better_budget_tokens
from router.core.dispatcher import Limits
from router.core.request import Request
from router.telemetry.advisor import INTERVAL_S, Advisor

TPOT_S = 0.06


def forecast(budget_tokens, late_share=0.1, **speed):
    made = Forecast(Clock(100.0), Speed(steps_per_token=1 / budget_tokens, **speed))
    made.late_share = late_share
    return made


def test_a_budget_whose_steps_streams_cannot_bear_is_told_a_better_one():
    tokens = better_budget_tokens(forecast(7000), TPOT_S)
    assert tokens == 1024
    assert Speed().prefill_time_s(tokens) <= TPOT_S < Speed().prefill_time_s(2 * tokens)


def test_there_is_a_least_budget():
    assert better_budget_tokens(forecast(16_384, token_s=0.1), TPOT_S) == LEAST_TOKENS


@pytest.mark.parametrize(
    "good",
    [
        forecast(7000, late_share=0.02),  # hardly anybody is late
        forecast(7000, step_s=0.05),  # too many streams, or too slow a replica
        forecast(1000),  # its steps are short
        forecast(8192, token_s=1.0),  # nothing was learned
    ],
)
def test_otherwise_there_is_nothing_to_say(good):
    assert better_budget_tokens(good, TPOT_S) is None


class Loop:
    """A timer that is moved by hand."""

    def __init__(self):
        self.later = []

    def call_later(self, delay_s, call):
        assert delay_s == INTERVAL_S
        self.later.append(call)
        return self

    def cancel(self):
        self.later.clear()


@pytest.fixture
def house():
    return House("a", "b", policy=LeastRequests(), limits=Limits())


def stream(house, seconds):
    """One answer of 11 tokens that takes so long after its first."""
    facts = RequestFacts(model="m", streamed=True, prompt_tokens=10, tpot_slo_s=TPOT_S)
    (send,) = house.dispatcher.request_arrived(Request("q", facts, house.now), house.now)
    attempt = send.attempt
    house.dispatcher.headers_received(attempt, 200, house.now)
    house.dispatcher.progress(attempt, 1, house.now)
    house.now += seconds
    house.dispatcher.progress(attempt, 10, house.now)
    house.dispatcher.attempt_ended(attempt, house.now)
    return attempt.replica.forecast


def test_the_share_of_late_streams_follows_what_ends():
    house = House("a", policy=LeastRequests(), limits=Limits())
    for _ in range(300):
        seen = stream(house, 0.5)
    assert seen.late_share == 0.0
    for _ in range(300):
        seen = stream(house, 0.7)
    assert seen.late_share > 0.9


def test_the_operator_is_told_once_a_replica(house, caplog):
    house.fleet.replicas["a"].forecast = forecast(7000)
    loop = Loop()
    advisor = Advisor(loop, house.dispatcher, TPOT_S)
    advisor.start()
    with caplog.at_level(logging.WARNING, "pointsman.advice"):
        for _ in range(3):
            loop.later.pop()()
    (told,) = caplog.messages
    assert told.startswith("a: 10 % of its streams miss 60 ms a token, though steps without")
    assert "should be about 1024 (vLLM: --max-num-batched-tokens" in told
    advisor.stop()
    assert loop.later == []


def test_without_an_objective_there_is_nothing_to_say(house, caplog):
    house.fleet.replicas["a"].forecast = forecast(7000)
    with caplog.at_level(logging.WARNING, "pointsman.advice"):
        Advisor(Loop(), house.dispatcher, None).look()
    assert caplog.messages == []
