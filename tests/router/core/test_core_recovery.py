"""The dispatcher under failures: retries, outages, stalls, drains, and answers that go on."""

from __future__ import annotations

import pytest
from house import House

from policies.base import RequestFacts
from policies.least_requests import LeastRequests
from router.core.actions import Abort, Cancel, Refuse, Send
from router.core.dispatcher import Limits
from router.core.drain_rules import DrainRefusedError
from router.core.health import Cause, Health
from router.core.hold import HoldLimits
from router.core.placement import BACKLOG_PREFILLS
from router.core.request import Failure, Request, State
from router.core.retry import RetrySettings


class Recovery(House):
    """A house with requests at every stage."""

    def __init__(self, *names, outage_s=30.0, **retry):
        super().__init__(
            *names,
            policy=LeastRequests(),
            limits=Limits(retry=RetrySettings(**retry)),
            hold=HoldLimits(outage_s=outage_s),
        )

    def request_ended(self, request, replica, now):
        self.ended.append((request.request_id, request.state))

    def arrive(self, request_id="q", **facts):
        request = Request(request_id, RequestFacts(**({"model": "m"} | facts)), self.now)
        return request, list(self.dispatcher.request_arrived(request, self.now))

    def send(self, request_id="q", **facts):
        _, (action,) = self.arrive(request_id, **facts)
        assert isinstance(action, Send)
        return action.attempt

    def head(self, attempt, status, retry_after_s=None):
        return list(self.dispatcher.headers_received(attempt, status, self.now, retry_after_s))

    def stream(self, request_id="q", *, tokens=20, **facts):
        """A request whose answer is on its way."""
        attempt = self.send(request_id, **({"streamed": True} | facts))
        assert self.head(attempt, 200) == []
        self.progress(attempt, 1)
        self.progress(attempt, tokens)
        return attempt

    def progress(self, attempt, tokens):
        return list(self.dispatcher.progress(attempt, tokens, self.now))

    def fail(self, attempt, failure=Failure.RESET):
        return super().fail(attempt, failure)

    def end(self, attempt):
        return list(self.dispatcher.attempt_ended(attempt, self.now))

    def health(self, name):
        return self.fleet.replicas[name].health


# -- errors at the head ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_error_goes_elsewhere_before_anybody_sees_it(status):
    house = Recovery("a", "b")
    attempt = house.send(prompt_tokens=50)
    (action,) = house.head(attempt, status)
    assert isinstance(action, Send)
    assert action.attempt.replica is not attempt.replica
    assert attempt.replica.in_flight == attempt.replica.in_flight_prompt_tokens == 0
    assert attempt.request.state is State.SENT
    assert house.head(action.attempt, 200) == []
    assert (attempt.request.state, attempt.request.status) == (State.RELAYING, 200)
    assert house.dispatcher.counters.turned_away == {status: 1}


@pytest.mark.parametrize("status", [400, 404, 413, 422, 501])
def test_an_error_of_the_clients_own_making_is_relayed(status):
    house = Recovery("a", "b")
    attempt = house.send()
    assert house.head(attempt, status) == []
    assert attempt.request.state is State.RELAYING
    assert house.health(attempt.replica.name).state is Health.READY


def test_when_all_are_busy_the_client_is_told_so():
    house = Recovery("a", "b")
    attempt = house.send()
    (action,) = house.head(attempt, 429, 7.0)
    assert house.head(action.attempt, 429, 7.0) == []
    assert attempt.request.status == 429


def test_retry_after_is_time_in_which_others_are_asked():
    house = Recovery("a", "b")
    attempt = house.send()
    busy = attempt.replica
    (action,) = house.head(attempt, 503, 5.0)
    other = action.attempt.replica
    assert {house.send(str(n)).replica for n in range(4)} == {other}
    house.now += 5.0
    assert house.send("later").replica is busy


# -- passive health ------------------------------------------------------------------------------


def test_a_replica_that_keeps_failing_is_ejected_and_comes_back_by_a_probe():
    house = Recovery("a", "b", "c")
    bad = house.fleet.replicas["a"]
    failed = 0
    while failed < 3:
        attempt = house.send(f"q{failed}")
        if attempt.replica is not bad:
            house.head(attempt, 200)
            house.end(attempt)
            continue
        failed += 1
        (again,) = house.fail(attempt)
        house.head(again.attempt, 200)
        house.end(again.attempt)
    assert house.changes == [("a", Health.READY, Health.EJECTED, Cause.FAILURES_IN_A_ROW)]
    assert bad not in house.fleet.candidates("m")
    house.after(7.0)
    assert bad.health.state is Health.HALF_OPEN
    probe = house.send("probe", prompt_tokens=100)
    assert probe.replica is bad
    assert house.dispatcher.chooser.reasons["probe"] == 1
    house.head(probe, 200)
    house.end(probe)
    assert bad.health.state is Health.WARMING
    house.after(25.0)
    assert bad.health.state is Health.READY


@pytest.mark.parametrize("well", [True, False])
def test_a_replica_may_leave_the_fleet_while_it_is_tried(well):
    house = Recovery("a", "b")
    house.down("a")
    house.now += 3.0
    house.up("a")
    assert house.health("a").state is Health.HALF_OPEN
    probe = house.send("probe", prompt_tokens=100, streamed=True)
    assert probe.replica.name == "a"
    house.fleet.remove("a")
    if well:
        house.head(probe, 200)
        house.progress(probe, 20)
        house.end(probe)
        assert house.ended == [("probe", State.DONE)]
    else:
        (again,) = house.fail(probe)
        assert again.attempt.replica.name == "b"


def test_a_probe_that_came_late_is_not_how_long_its_replica_usually_rests():
    house = Recovery("a", "b")
    house.down("a")
    house.now += 3.0
    house.up("a")
    probe = house.send("probe", prompt_tokens=100, streamed=True)
    house.now += 9.0
    house.head(probe, 200)
    house.progress(probe, 20)
    assert house.health("a").state is Health.WARMING
    assert probe.replica.silence.peak_s == 0.0


def test_one_request_counts_against_one_replica_only():
    house = Recovery("a", "b", "c", "d")
    for number in range(6):
        attempt = house.send(f"poison {number}")
        while True:
            (action,) = house.fail(attempt) or house.after(1.0)
            if not isinstance(action, Send):
                break
            attempt = action.attempt
        assert action.status == 502
    ejected = [name for name, _, after, _ in house.changes if after is Health.EJECTED]
    assert len(ejected) <= 2


def test_a_replica_that_returns_has_an_empty_cache():
    house = Recovery("a", "b")
    facts = {"prefix": (1, 2, 3), "prefix_block_tokens": 16, "prompt_tokens": 50}
    name = house.send(**facts).replica.name
    assert house.dispatcher.prefix_index.match((1, 2, 3), 16) == {name: 48}
    house.down(name)
    assert house.dispatcher.prefix_index.match((1, 2, 3), 16) == {name: 48}
    house.up(name)
    assert house.dispatcher.prefix_index.match((1, 2, 3), 16) == {}


# -- outages -------------------------------------------------------------------------------------


def test_what_comes_in_an_outage_waits_for_its_end():
    house = Recovery("a")
    house.down("a")
    request, actions = house.arrive()
    assert (actions, request.state) == ([], State.HELD)
    assert house.after(10.0) == []
    (action,) = house.up("a")
    assert isinstance(action, Send)
    assert action.attempt.request is request
    assert len(house.dispatcher.waiting) == 0


def test_an_outage_that_lasts_is_told_with_a_retry_after():
    house = Recovery("a")
    house.down("a")
    request, _ = house.arrive()
    assert house.after(29.5) == []
    (refuse,) = house.after(1.0)
    assert isinstance(refuse, Refuse)
    assert (refuse.status, refuse.code) == (503, "no_replica_ready")
    assert refuse.retry_after_s >= 1
    assert request.state is State.REFUSED


def test_a_deadline_ends_the_wait_earlier():
    house = Recovery("a")
    house.down("a")
    house.arrive(deadline_s=2.0)
    (refuse,) = house.after(3.0)
    assert (refuse.status, refuse.code) == (504, "deadline_exceeded")


def test_the_first_one_back_is_not_flooded():
    house = Recovery("a", "b")
    house.down("a")
    house.down("b")
    for number in range(20):
        house.arrive(f"q{number}", streamed=True, prompt_tokens=10)
    first = house.up("a")
    assert len(first) == BACKLOG_PREFILLS
    began = first[0].attempt
    house.head(began, 200)
    assert len(house.progress(began, 1)) == 1
    assert len(house.dispatcher.waiting) == 15
    second = house.up("b")
    assert {action.attempt.replica.name for action in second} == {"b"}
    assert len(second) == BACKLOG_PREFILLS


def test_what_a_dead_replica_was_asked_is_asked_again_when_it_is_back():
    house = Recovery("a")
    attempt = house.send()
    assert house.fail(attempt) == []
    assert attempt.request.state is State.HELD
    house.down("a")
    assert house.after(5.0) == []
    (action,) = house.up("a")
    assert isinstance(action, Send)
    assert action.attempt.request is attempt.request


def test_what_fails_at_the_only_replica_though_it_is_well_is_not_kept_waiting():
    house = Recovery("a")
    house.fail(house.send())
    (refuse,) = house.after(1.25)
    assert (refuse.status, refuse.code) == (502, "upstream_failed")


def test_a_client_may_leave_while_it_waits():
    house = Recovery("a")
    house.down("a")
    request, _ = house.arrive()
    assert list(house.dispatcher.client_gone(request, house.now)) == []
    assert house.up("a") == []
    assert house.ended == [("q", State.GONE)]


def test_retries_are_within_their_budget_and_the_rest_waits_for_room():
    house = Recovery("a", "b")
    streams = [house.send(str(n), streamed=True) for n in range(40)]
    lost = [attempt for attempt in streams if attempt.replica.name == "a"]
    sent = [action for attempt in lost for action in house.fail(attempt)]
    assert {type(action) for action in sent} == {Send}
    assert len(sent) == house.dispatcher.budget.retrying == 8  # a fifth of 40
    assert len(house.dispatcher.waiting) == len(lost) - 8
    # the budget is free again as soon as an answer begins
    house.head(sent[0].attempt, 200)
    house.progress(sent[0].attempt, 1)
    assert house.dispatcher.budget.retrying == 7


# -- stalls --------------------------------------------------------------------------------------


def stalling(*names):
    """A stream on each replica; those on ``a`` are never heard of again."""
    house = Recovery(*names)
    streams = {attempt.replica.name: attempt for attempt in map(house.stream, names)}
    for _ in range(30):
        house.now += 0.1
        for attempt in streams.values():
            house.progress(attempt, 8)
    return house, streams


def test_a_replica_that_makes_no_token_is_ejected_and_its_streams_end_or_go_on():
    house, streams = stalling("a", "b", "c")
    others = [streams["b"], streams["c"]]
    actions = []
    for _ in range(30):
        for attempt in others:
            house.progress(attempt, 8)
        actions += house.after(0.25)
    assert [type(action) for action in actions] == [Cancel, Abort]
    assert actions[0].attempt is streams["a"]
    assert house.changes == [("a", Health.READY, Health.EJECTED, Cause.STALL)]
    assert house.dispatcher.counters.failed == {Failure.STALL: 1}


def test_a_stream_that_can_be_continued_goes_on_when_its_replica_stalls():
    house, streams = stalling("a", "b")
    streams["a"].request.continuable = True
    actions = []
    for _ in range(30):
        house.progress(streams["b"], 8)
        actions += house.after(0.25)
    cancel, send = actions
    assert cancel.attempt is streams["a"]
    assert (send.continues, send.attempt.replica.name) == (True, "b")


def test_a_client_that_stopped_reading_is_no_stall():
    house, streams = stalling("a", "b")
    house.dispatcher.client_paused(streams["a"], house.now, paused=True)
    for _ in range(60):
        house.progress(streams["b"], 8)
        assert house.after(0.25) == []
    house.dispatcher.client_paused(streams["a"], house.now, paused=False)
    house.progress(streams["b"], 8)
    assert house.after(0.25) == []
    assert house.changes == []


# -- answers that go on --------------------------------------------------------------------------


def test_a_broken_stream_goes_on_elsewhere_if_it_can_be_continued():
    house = Recovery("a", "b", "c", max_attempts=1)
    attempt = house.stream()
    attempt.request.continuable = True
    (action,) = house.fail(attempt)
    assert (type(action), action.continues) == (Send, True)
    assert house.dispatcher.counters.continued == attempt.request.continued == 1
    assert house.dispatcher.budget.retrying == 1
    assert house.head(action.attempt, 200) == []
    house.progress(action.attempt, 8)
    assert house.dispatcher.budget.retrying == 0
    house.end(action.attempt)
    assert house.ended == [("q", State.DONE)]
    assert attempt.request.first_byte_s == 100.0


def test_a_broken_stream_that_cannot_be_continued_ends_visibly():
    house = Recovery("a", "b")
    (action,) = house.fail(house.stream())
    assert isinstance(action, Abort)
    assert house.ended == [("q", State.FAILED)]


def test_continuations_are_bounded():
    house = Recovery("a", "b", "c", "d", max_continued=2)
    attempt = house.stream()
    attempt.request.continuable = True
    for _ in range(2):
        (action,) = house.fail(attempt)
        attempt = action.attempt
        house.head(attempt, 200)
        house.progress(attempt, 8)
    (action,) = house.fail(attempt)
    assert isinstance(action, Abort)


def test_an_error_in_answer_to_a_continuation_is_never_relayed():
    house = Recovery("a", "b", "c")
    attempt = house.stream()
    attempt.request.continuable = True
    (action,) = house.fail(attempt)
    (again,) = house.head(action.attempt, 503)
    assert (type(again), again.continues) == (Send, True)
    (abort,) = house.head(again.attempt, 400)
    assert isinstance(abort, Abort)
    assert attempt.request.status == 200


def test_a_stream_waits_for_a_replica_to_go_on_at():
    house = Recovery("a", "b")
    house.down("b")
    attempt = house.stream()
    attempt.request.continuable = True
    house.down("a")
    assert house.fail(attempt) == []
    assert attempt.request.state is State.HELD
    house.now += 3.0
    (action,) = house.up("b")
    assert (action.continues, action.attempt.replica.name) == (True, "b")


def test_a_begun_answer_never_makes_room_for_another_one():
    house = Recovery("a")
    house.dispatcher.waiting.limits.max_requests = 1
    begun = [house.stream(name) for name in ("q", "r")]
    house.down("a")
    for attempt in begun:
        attempt.request.continuable = True
        assert house.fail(attempt) == []
    newcomer, (action,) = house.arrive("new")
    assert isinstance(action, Refuse)
    assert (action.request, action.status) == (newcomer, 503)
    house.now += 3.0
    sent = house.up("a")
    assert {action.attempt.request for action in sent} == {a.request for a in begun}


@pytest.mark.parametrize("begun", [False, True])
def test_refused_connections_use_up_no_tries(begun):
    house = Recovery("a", "b", "c", "d", "e", "f", "g")
    attempt = house.stream() if begun else house.send(streamed=True)
    request, actions = attempt.request, []
    request.continuable = begun
    actions = house.fail(attempt)
    while actions:
        (action,) = actions
        assert isinstance(action, Send)
        actions = house.fail(action.attempt, Failure.CONNECT)
    assert len(request.tried) == 7
    assert request.state is State.HELD
    for name in house.fleet.replicas:
        house.down(name)
    house.now += 20.0
    (action,) = house.up("a")
    assert (action.attempt.request, action.continues) == (request, begun)


@pytest.mark.parametrize("begun", [False, True])
def test_what_breaks_as_a_whole_fleet_dies_waits_before_its_last_try(begun):
    house = Recovery("a", "b", "c", "d", "e")
    attempt = house.send(streamed=True)
    request = attempt.request
    if begun:
        house.head(attempt, 200)
        request.continuable = True
    (action,) = house.fail(attempt)
    assert house.fail(action.attempt) == []
    assert request.state is State.HELD
    assert house.after(0.75) == []
    (action,) = house.after(0.25)
    while True:
        actions = house.fail(action.attempt, Failure.CONNECT)
        if not actions:
            break
        (action,) = actions
    for name in house.fleet.replicas:
        house.down(name)
    house.now += 20.0
    (action,) = house.up("a")
    assert (action.attempt.request, action.continues) == (request, begun)


def test_what_breaks_a_third_replica_after_its_wait_is_let_go():
    house = Recovery("a", "b", "c", "d", "e")
    (action,) = house.fail(house.send())
    assert house.fail(action.attempt) == []
    (action,) = house.after(1.0)
    (refusal,) = house.fail(action.attempt)
    assert (refusal.status, refusal.code) == (502, "upstream_failed")


def test_who_came_back_may_be_asked_though_another_failed_after_that():
    house = Recovery("a", "b")
    attempt = house.stream()
    attempt.request.continuable = True
    first = attempt.replica.name
    house.down(first)
    (action,) = house.fail(attempt)
    house.now += 5.0
    house.up(first)
    house.now += 1.0
    (again,) = house.fail(action.attempt)
    assert again.attempt.replica.name == first


def test_a_stream_that_waits_in_vain_ends_visibly():
    house = Recovery("a")
    attempt = house.stream()
    attempt.request.continuable = True
    house.down("a")
    assert house.fail(attempt) == []
    (action,) = house.after(31.0)
    assert isinstance(action, Abort)


@pytest.mark.parametrize(("complete", "end"), [(True, State.DONE), (False, State.FAILED)])
def test_a_continuation_may_need_no_sending_or_be_impossible(complete, end):
    house = Recovery("a", "b")
    attempt = house.stream()
    attempt.request.continuable = True
    (action,) = house.fail(attempt)
    replica = action.attempt.replica
    actions = house.dispatcher.continuation_settled(action.attempt, house.now, complete=complete)
    assert [type(action) for action in actions] == ([] if complete else [Abort])
    assert house.ended == [("q", end)]
    assert replica.in_flight == house.dispatcher.budget.retrying == 0


# -- drains --------------------------------------------------------------------------------------


def test_a_drained_replica_ends_what_it_has_and_gets_nothing_new():
    house = Recovery("a", "b")
    running = house.stream()
    name = running.replica.name
    assert list(house.dispatcher.drain(name, house.now)) == []
    assert {house.send(str(n)).replica.name for n in range(4)} == {"a", "b"} - {name}
    house.end(running)
    assert (("q", State.DONE)) in house.ended
    house.down(name)
    house.up(name)
    assert house.health(name).state is Health.HALF_OPEN
    causes = [cause for _, _, _, cause in house.changes]
    assert causes == [Cause.DRAIN_ASKED, Cause.HEALTH_DOWN, Cause.HEALTH_UP]


def test_the_last_replica_is_drained_by_force_only():
    house = Recovery("a", "b")
    house.dispatcher.drain("a", house.now)
    with pytest.raises(DrainRefusedError, match="at least 1 must stay"):
        house.dispatcher.drain("b", house.now)
    house.dispatcher.drain("b", house.now, force=True)
    request, actions = house.arrive()
    assert (actions, request.state) == ([], State.HELD)
    (action,) = house.dispatcher.undrain("b", house.now)
    assert (action.attempt.request, action.attempt.replica.name) == (request, "b")


def test_replicas_that_serve_unproven_are_missed_like_any():
    house = Recovery("a", "b")
    for name in ("a", "b"):
        house.down(name)
        house.up(name)
        assert house.health(name).state is Health.HALF_OPEN
    assert house.dispatcher.draining.rolling_order(house.now, at_once=2) == [("a",), ("b",)]
    house.dispatcher.drain("a", house.now)
    with pytest.raises(DrainRefusedError, match="at least 1 must stay"):
        house.dispatcher.drain("b", house.now)


def test_an_unknown_name_is_no_replica():
    with pytest.raises(KeyError):
        Recovery("a").dispatcher.drain("z", 1.0)
