"""The dispatcher, event by event."""

from __future__ import annotations

from random import Random

import pytest

from policies.base import Choice, RequestFacts
from policies.least_requests import LeastRequests
from router.core.actions import Abort, Cancel, Refuse, Send
from router.core.chooser import MAX_REASONS
from router.core.dispatcher import Dispatcher, Limits
from router.core.fleet import FleetState
from router.core.hold import HoldLimits
from router.core.replica import Replica
from router.core.request import Failure, Request, State
from router.core.retry import RetrySettings
from router.core.sample import Sample

NO_WAITING = HoldLimits(outage_s=0.0)
"""Nobody waits for a replica to come back."""


class Ends:
    """An observer that remembers."""

    def __init__(self):
        self.requests = []
        self.errors = []
        self.changes = []

    def health_changed(self, change):
        self.changes.append(change)

    def request_ended(self, request, replica, now):
        self.requests.append((request.request_id, request.state, replica and replica.name, now))

    def policy_failed(self, error):
        self.errors.append(error)


class Scripted:
    """A policy that answers what it is told to."""

    def __init__(self, answer):
        self.answer = answer

    def choose(self, request, replicas, rng):
        return self.answer(replicas)


def build(*names, policy=None, models=("m",), hold=None, **retry):
    fleet = FleetState()
    ends = Ends()
    limits = Limits(retry=RetrySettings(**retry))
    dispatcher = Dispatcher(
        fleet, policy or LeastRequests(), Random(1), ends, limits, hold=hold or NO_WAITING
    )
    for name in names:
        join(dispatcher, name, models)
    ends.changes.clear()
    return dispatcher, ends


def join(dispatcher, name, models=("m",)):
    replica = dispatcher.fleet.add(name, f"http://{name}")
    dispatcher.models_seen(replica, models)
    dispatcher.health_seen(replica, 0.0, healthy=True, reason="fine")
    return replica


def down(dispatcher, name, now=10.0):
    return dispatcher.health_seen(
        dispatcher.fleet.replicas[name], now, healthy=False, reason="down"
    )


def up(dispatcher, name, now):
    return dispatcher.health_seen(dispatcher.fleet.replicas[name], now, healthy=True, reason="ok")


def arrive(dispatcher, request_id="q", *, now=10.0, **facts):
    request = Request(request_id, RequestFacts(**facts), now)
    return request, dispatcher.request_arrived(request, now)


def sent(dispatcher, request_id="q", **facts):
    _, (action,) = arrive(dispatcher, request_id, **facts)
    assert isinstance(action, Send)
    return action.attempt


def test_limits_have_defaults():
    dispatcher = Dispatcher(FleetState(), LeastRequests(), Random(1), Ends())
    assert dispatcher.limits.retry.max_attempts == 3


def test_a_request_is_sent_relayed_and_done():
    dispatcher, ends = build("a", "b")
    attempt = sent(dispatcher, model="m", prompt_tokens=500)
    request, replica = attempt.request, attempt.replica
    assert (request.state, request.attempts, request.tried) == (State.SENT, 1, (replica,))
    assert (replica.in_flight, replica.in_flight_prompt_tokens, replica.unseen) == (1, 500, 1)
    assert (attempt.started_s, replica.last_dispatch) == (10.0, 1)

    dispatcher.headers_received(attempt, 200, 10.5)
    assert (request.state, request.status) == (State.RELAYING, 200)
    dispatcher.progress(attempt, 0, 11.0)
    dispatcher.progress(attempt, 7, 12.0)
    assert request.first_byte_s == 11.0
    assert (attempt.output_tokens, replica.in_flight_output_tokens) == (7, 7)

    assert dispatcher.attempt_ended(attempt, 13.0) == ()
    assert ends.requests == [("q", State.DONE, replica.name, 13.0)]
    assert (replica.in_flight, replica.in_flight_prompt_tokens) == (0, 0)
    assert (replica.in_flight_output_tokens, replica.dispatched_total) == (0, 1)
    assert dispatcher.open == set()
    assert dispatcher.chooser.reasons == {"fewest_requests": 1}


def test_a_connection_that_fails_before_the_answer_goes_to_another_replica():
    dispatcher, ends = build("a", "b", "c")
    attempt = sent(dispatcher, model="m", prompt_tokens=9)
    (again,) = dispatcher.attempt_failed(attempt, Failure.CONNECT, 11.0)
    assert isinstance(again, Send)
    assert again.attempt.request is attempt.request
    assert again.attempt.replica is not attempt.replica
    assert (attempt.replica.in_flight, again.attempt.replica.in_flight) == (0, 1)
    assert attempt.replica.failed_total == 1
    assert ends.requests == []
    assert dispatcher.counters.failed == {Failure.CONNECT: 1}


def test_attempts_end_with_the_replicas():
    dispatcher, ends = build("a", "b")
    attempt = sent(dispatcher, model="m")
    (again,) = dispatcher.attempt_failed(attempt, Failure.RESET, 11.0)
    (action,) = dispatcher.attempt_failed(again.attempt, Failure.PROTOCOL, 12.0)
    assert isinstance(action, Refuse)
    assert (action.status, action.code, action.retry_after_s) == (502, "upstream_failed", 1)
    assert action.message == "No replica could answer (2 tried)."
    assert ends.requests == [("q", State.FAILED, again.attempt.replica.name, 12.0)]


def test_attempts_end_with_the_limit():
    dispatcher, ends = build("a", "b", "c", max_attempts=2)
    attempt = sent(dispatcher, model="m")
    (again,) = dispatcher.attempt_failed(attempt, Failure.RESET, 11.0)
    (action,) = dispatcher.attempt_failed(again.attempt, Failure.RESET, 11.0)
    assert isinstance(action, Refuse)
    assert len(ends.requests) == 1


def test_where_nobody_was_there_nothing_was_tried():
    dispatcher, ends = build("a", "b", "c", max_attempts=1)
    attempt = sent(dispatcher, model="m")
    (second,) = dispatcher.attempt_failed(attempt, Failure.CONNECT, 11.0)
    (third,) = dispatcher.attempt_failed(second.attempt, Failure.CONNECT, 11.0)
    assert {a.replica.name for a in (attempt, second.attempt, third.attempt)} == {"a", "b", "c"}
    (action,) = dispatcher.attempt_failed(third.attempt, Failure.RESET, 11.0)
    assert isinstance(action, Refuse)
    assert len(ends.requests) == 1


def test_a_replica_that_became_ready_in_between_is_tried():
    dispatcher, _ = build("a")
    attempt = sent(dispatcher, model="m")
    late = join(dispatcher, "late")
    (again,) = dispatcher.attempt_failed(attempt, Failure.CONNECT, 11.0)
    assert again.attempt.replica is late


def test_an_answer_that_breaks_off_is_not_sent_again():
    dispatcher, ends = build("a", "b")
    attempt = sent(dispatcher, model="m")
    dispatcher.headers_received(attempt, 200, 10.5)
    dispatcher.progress(attempt, 40, 11.0)
    (action,) = dispatcher.attempt_failed(attempt, Failure.RESET, 12.0)
    assert isinstance(action, Abort)
    assert (action.request, action.code) == (attempt.request, "upstream_failed")
    assert attempt.replica.in_flight_output_tokens == 0
    assert ends.requests == [("q", State.FAILED, "a", 12.0)]


def test_a_client_that_leaves_cancels_its_attempt_once():
    dispatcher, ends = build("a")
    attempt = sent(dispatcher, model="m")
    (action,) = dispatcher.client_gone(attempt.request, 11.0)
    assert isinstance(action, Cancel)
    assert action.attempt is attempt
    assert attempt.request.attempt is None
    assert dispatcher.client_gone(attempt.request, 12.0) == ()
    assert ends.requests == [("q", State.GONE, "a", 11.0)]


def test_a_client_that_left_before_its_request_was_routed_is_told_as_gone():
    dispatcher, ends = build("a")
    request = Request("q", RequestFacts(), 10.0)
    assert dispatcher.client_gone(request, 11.0) == ()
    assert ends.requests == [("q", State.GONE, None, 11.0)]


def test_a_replica_that_left_the_fleet_finishes_its_attempt():
    dispatcher, _ = build("a")
    attempt = sent(dispatcher, model="m", prompt_tokens=5)
    replica = dispatcher.fleet.remove("a")
    dispatcher.headers_received(attempt, 200, 10.5)
    dispatcher.attempt_ended(attempt, 11.0)
    assert (replica.in_flight, replica.in_flight_prompt_tokens) == (0, 0)


def test_an_unknown_model_is_refused_with_those_that_are_served():
    dispatcher, ends = build("a", models=["z", "m"])
    request, (action,) = arrive(dispatcher, model="gpt-9")
    assert (action.status, action.code, action.retry_after_s) == (404, "model_not_found", None)
    assert action.message == "The model `gpt-9` does not exist. Models served: m, z."
    assert request.status == 404
    assert ends.requests == [("q", State.REFUSED, None, 10.0)]


def test_an_unknown_model_with_nothing_ready_names_none():
    dispatcher, _ = build("a")
    down(dispatcher, "a")
    _, (action,) = arrive(dispatcher, model="gpt-9")
    assert action.message == "The model `gpt-9` does not exist. Models served: none yet."


@pytest.mark.parametrize("model", ["m", None])
def test_a_model_whose_replicas_are_down_is_refused_for_now(model):
    dispatcher, _ = build("a")
    down(dispatcher, "a")
    _, (action,) = arrive(dispatcher, model=model)
    assert (action.status, action.code, action.retry_after_s) == (503, "no_replica_ready", 1)


def test_one_that_never_listed_its_models_makes_no_name_known_beside_others_that_are_ready():
    dispatcher, _ = build("a")
    dispatcher.fleet.add("new", "http://new")
    _, (action,) = arrive(dispatcher, model="gpt-9")
    assert (action.status, action.code) == (404, "model_not_found")
    down(dispatcher, "a")
    _, (action,) = arrive(dispatcher, model="gpt-9")
    assert (action.status, action.code) == (503, "no_replica_ready")


def test_an_empty_fleet_knows_of_no_model_that_it_does_not_exist():
    dispatcher, _ = build()
    _, (action,) = arrive(dispatcher, model="m")
    assert (action.status, action.code) == (503, "no_replica_ready")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda _: 1 / 0, ZeroDivisionError),
        (lambda _: None, AttributeError),
        (lambda replicas: (replicas[0], "no Choice"), AttributeError),
        (lambda _: Choice(Replica("a", "http://a"), "same name, not the same"), ValueError),
        (lambda _: Choice(None, "nobody"), ValueError),
        (lambda replicas: Choice(replicas[0], None), TypeError),
        (lambda replicas: Choice(replicas[0], ["no", "string"]), TypeError),
    ],
)
def test_a_policy_that_misbehaves_costs_no_request(answer, error):
    dispatcher, ends = build("a", "b", policy=Scripted(answer))
    first = sent(dispatcher, "q1", model="m")
    second = sent(dispatcher, "q2", model="m")
    assert {first.replica.name, second.replica.name} == {"a", "b"}
    assert dispatcher.chooser.errors == 2
    assert dispatcher.chooser.reasons == {"fallback": 2}
    assert [type(raised) for raised in ends.errors] == [error, error]


def test_a_policy_that_picks_whom_the_request_failed_on_is_corrected():
    keep = []
    dispatcher, _ = build("a", "b", policy=Scripted(lambda _: Choice(keep[0], "always a")))
    keep.append(dispatcher.fleet.replicas["a"])
    attempt = sent(dispatcher, model="m")
    assert attempt.replica.name == "a"
    (again,) = dispatcher.attempt_failed(attempt, Failure.CONNECT, 11.0)
    assert again.attempt.replica.name == "b"
    assert dispatcher.chooser.reasons == {"always a": 1, "fallback": 1}


def test_a_policy_that_expects_no_time_is_corrected():
    dispatcher, ends = build("a", policy=Scripted(lambda r: Choice(r[0], "best", ttft_s="soon")))
    assert sent(dispatcher, model="m").replica.name == "a"
    assert dispatcher.chooser.reasons == {"fallback": 1}
    assert "a TTFT of 'soon'; allowed: seconds, or None" in str(ends.errors[0])


def test_reasons_without_end_are_counted_as_other():
    numbers = iter(range(1000))
    policy = Scripted(lambda replicas: Choice(replicas[0], f"reason {next(numbers)}"))
    dispatcher, _ = build("a", policy=policy)
    for number in range(MAX_REASONS + 20):
        sent(dispatcher, f"q{number}", model="m")
    assert dispatcher.chooser.reasons["other"] == 20
    assert len(dispatcher.chooser.reasons) == MAX_REASONS + 1


def test_a_sample_is_passed_on_and_expires():
    dispatcher, _ = build("a")
    attempt = sent(dispatcher, model="m")
    replica = attempt.replica
    assert dispatcher.sampled(replica, Sample(running=4, waiting=1, kv_occupancy=0.5), 20.0) == ()
    assert (replica.running, replica.waiting, replica.kv_occupancy) == (4, 1, 0.5)
    assert replica.unseen == 0
    assert not dispatcher.tick(22.0)
    assert replica.running == 4
    dispatcher.tick(22.1)
    assert (replica.running, replica.waiting, replica.kv_occupancy) == (None, None, None)
    assert dispatcher.sample_failed(replica, "HTTP 500") == ()
    assert replica.poll_error == "HTTP 500"
    assert replica.ready


class OneAtATime:
    """A policy that holds whatever would share a replica."""

    def choose(self, request, replicas, rng):
        idle = [replica for replica in replicas if not replica.in_flight]
        return Choice((idle or replicas)[0], "idle" if idle else "busy", hold=not idle)


def leave(dispatcher, attempt):
    return dispatcher.client_gone(attempt.request, 11.0)


def break_down(dispatcher, attempt):
    return dispatcher.attempt_failed(attempt, Failure.PROTOCOL, 11.0)


def break_in_mid_answer(dispatcher, attempt):
    dispatcher.headers_received(attempt, 200, 10.9)
    return dispatcher.attempt_failed(attempt, Failure.RESET, 11.0)


@pytest.mark.parametrize("end", [leave, break_down, break_in_mid_answer])
def test_who_waits_takes_the_place_of_one_that_left_or_broke_at_once(end):
    dispatcher, _ = build("a", policy=OneAtATime(), hold=HoldLimits())
    attempt = sent(dispatcher, "first", model="m")
    waiting, actions = arrive(dispatcher, "second", model="m")
    assert (waiting.state, tuple(actions), len(dispatcher.waiting)) == (State.HELD, (), 1)
    actions = end(dispatcher, attempt)
    (send,) = [action for action in actions if isinstance(action, Send)]
    assert (send.attempt.request, len(dispatcher.waiting)) == (waiting, 0)


def test_an_answer_in_one_piece_has_its_first_byte_when_it_ends():
    dispatcher, _ = build("a")
    attempt = sent(dispatcher, model="m")
    dispatcher.headers_received(attempt, 200, 10.5)
    dispatcher.attempt_ended(attempt, 11.0)
    assert attempt.request.first_byte_s == 11.0


def test_the_error_of_the_only_replica_reaches_the_client_however_long_it_was_ready():
    fleet = FleetState()
    dispatcher = Dispatcher(fleet, LeastRequests(), Random(0), Ends())
    replica = fleet.add("a", "http://a")
    dispatcher.models_seen(replica, ["m"])
    dispatcher.health_seen(replica, 1000.0, healthy=True, reason="ok")
    request = Request("r", RequestFacts(model="m"), 2000.0)
    dispatcher.request_arrived(request, 2000.0)
    attempt = request.attempt
    assert not dispatcher.headers_received(attempt, 429, 2000.1, 0.0)
    assert request.attempt is attempt
    assert request.status == 429
