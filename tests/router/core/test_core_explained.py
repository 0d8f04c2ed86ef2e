"""What the dispatcher keeps of its decisions."""

from random import Random

import pytest

from policies.base import Choice, Estimate, RequestFacts
from router.core.actions import Send
from router.core.decisions import Decisions
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.request import Failure, Request


class Quiet:
    """An observer that only minds the policy."""

    def request_ended(self, request, replica, now):
        pass

    def health_changed(self, change):
        pass

    def policy_failed(self, error):
        raise error


class FirstAfter:
    """Lets requests wait until it is told otherwise; then the first replica is best."""

    hold = False

    def choose(self, request, replicas, rng):
        estimates = tuple(Estimate(r.name, cost=float(n)) for n, r in enumerate(replicas))
        return Choice(replicas[0], "best", hold=self.hold, ttft_s=0.5, estimates=estimates)


@pytest.fixture
def house():
    fleet = FleetState()
    policy = FirstAfter()
    dispatcher = Dispatcher(fleet, policy, Random(1), Quiet(), decisions=Decisions())
    for name in ("a", "b", "c"):
        replica = fleet.add(name, f"http://{name}")
        dispatcher.models_seen(replica, ["m"])
        dispatcher.health_seen(replica, 0.0, healthy=True, reason="fine")
    return dispatcher, policy


def arrive(dispatcher, now, *, streamed=True):
    facts = RequestFacts(model="m", prompt_tokens=50, streamed=streamed)
    request = Request("r", facts, now)
    return request, dispatcher.request_arrived(request, now)


def told(dispatcher):
    return [
        (d.chosen, d.reason, d.attempt, d.candidates, d.seen_ttft_s, d.outcome, d.took_s)
        for d in dispatcher.decisions.of("r")
    ]


def test_an_answer_to_the_end(house):
    dispatcher, _ = house
    request, _ = arrive(dispatcher, 1.0)
    attempt = request.attempt
    assert told(dispatcher) == [("a", "best", 1, 3, None, None, None)]
    dispatcher.headers_received(attempt, 200, 1.1)
    dispatcher.progress(attempt, 1, 1.5)
    dispatcher.progress(attempt, 4, 2.0)
    dispatcher.attempt_ended(attempt, 3.0)
    assert told(dispatcher) == [("a", "best", 1, 3, 0.5, "200", 2.0)]
    [decision] = dispatcher.decisions.last(1)
    assert [e.replica for e in decision.estimates] == ["a", "b", "c"]
    assert (decision.at_s, decision.held_s, decision.ttft_s) == (1.0, 0.0, 0.5)
    assert decision.e2e_s >= 0.5


def test_the_first_byte_of_an_answer_that_is_not_streamed_is_no_first_token(house):
    dispatcher, _ = house
    request, _ = arrive(dispatcher, 1.0, streamed=False)
    dispatcher.headers_received(request.attempt, 404, 1.1)
    dispatcher.progress(request.attempt, 1, 1.5)
    dispatcher.attempt_ended(request.attempt, 3.0)
    assert told(dispatcher) == [("a", "best", 1, 3, None, "404", 2.0)]


def test_each_attempt_is_told_with_how_it_failed(house):
    dispatcher, _ = house
    request, _ = arrive(dispatcher, 1.0)
    dispatcher.attempt_failed(request.attempt, Failure.CONNECT, 1.5)
    dispatcher.headers_received(request.attempt, 503, 2.5)
    dispatcher.client_gone(request, 3.0)
    assert told(dispatcher) == [
        ("a", "best", 1, 3, None, "connect", 0.5),
        ("b", "best", 2, 2, None, "503", 1.0),
        ("c", "best", 3, 1, None, "gone", 0.5),
    ]


def test_a_request_that_waited_is_told_with_how_long(house):
    dispatcher, policy = house
    first, _ = arrive(dispatcher, 0.0)
    policy.hold = True
    _, actions = arrive(dispatcher, 1.0)
    assert list(actions) == []
    policy.hold = False
    _, send = dispatcher.client_gone(first, 3.75)
    assert isinstance(send, Send)
    assert send.attempt.decision == dispatcher.decisions.total - 1
    assert dispatcher.decisions.last(1)[0].held_s == 2.75
    assert dispatcher.decisions.last(1)[0].at_s == 3.75
