"""Requests that wait in the router: in what order, how long, how many."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Choice, RequestFacts
from router.core.actions import Refuse, Send
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.hold import (
    MOST_TENANT_S,
    PRIORITY_S,
    SETBACK_S,
    TENANT_TOKENS_PER_S,
    HoldLimits,
    HoldQueue,
)
from router.core.outflow import Outflow
from router.core.request import Failure, Request, State


def waiting(name="q", arrived_s=100.0, **facts):
    facts = {"prompt_tokens": 1000, "ttft_slo_s": 2.0} | facts
    return Request(name, RequestFacts(**facts), arrived_s)


def order(*requests, lost=()):
    queue = HoldQueue()
    for request in requests:
        queue.put(request, lost=request in lost)
    return [request.request_id for request in queue]


def test_the_nearest_objective_goes_first():
    assert order(waiting("late", ttft_slo_s=9.0), waiting("soon", 101.0)) == ["soon", "late"]


def test_priority_is_time():
    patient = waiting("patient", 100.0, priority=1)
    assert order(patient, waiting("a", 100.0 + PRIORITY_S - 0.1)) == ["a", "patient"]
    assert order(patient, waiting("b", 100.0 + PRIORITY_S + 0.1)) == ["patient", "b"]


def test_what_must_miss_goes_behind_what_can_be_met_but_not_for_ever():
    hopeless = waiting("hopeless", 100.0)
    later = waiting("a", 100.0 + SETBACK_S - 0.1)
    assert order(hopeless, later, lost=[hopeless]) == ["a", "hopeless"]
    much_later = waiting("b", 100.0 + SETBACK_S + 0.1)
    assert order(hopeless, much_later, lost=[hopeless]) == ["hopeless", "b"]


def test_one_tenants_burst_lets_others_pass():
    burst = [waiting(f"x{n}", prompt_tokens=20_000, tenant="x") for n in range(4)]
    other = waiting("y", 101.0, tenant="y")
    assert order(*burst, other) == ["x0", "y", "x1", "x2", "x3"]
    apart_s = 20_000 / TENANT_TOKENS_PER_S
    assert order(*burst, waiting("y", 100.0 + 1.5 * apart_s)) == ["x0", "x1", "y", "x2", "x3"]
    assert MOST_TENANT_S < SETBACK_S


facts = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(1, 100_000),
        "ttft_slo_s": st.one_of(st.none(), st.floats(0.1, 60)),
        "priority": st.integers(-3, 3),
        "tenant": st.sampled_from([None, "x", "y"]),
    }
)


@given(all_facts=st.lists(facts, max_size=20), data=st.data())
def test_the_queue_keeps_its_sums_and_its_order(all_facts, data):
    queue, inside = HoldQueue(), []
    for number, each in enumerate(all_facts):
        request = waiting(str(number), data.draw(st.floats(0, 100)), **each)
        queue.put(request)
        inside.append(request)
        if data.draw(st.booleans()):
            queue.put(request, lost=True)
        if len(inside) > 1 and data.draw(st.booleans()):
            gone = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
            queue.take(gone)
            assert gone not in queue
        assert len(queue) == len(inside)
        assert set(queue) == set(inside)
        assert queue.tokens == sum(r.facts.prompt_tokens for r in inside)
        assert queue.first(len(inside)) == list(queue)
        assert queue.last_to_begin() is (list(queue)[-1] if inside else None)
    for request in inside:
        queue.take(request)
    assert (len(queue), queue.tokens, queue.last_to_begin()) == (0, 0, None)


class OneByOne:
    """Lets one request be at a replica, and holds the others."""

    def choose(self, request, replicas, rng):
        best = min(replicas, key=lambda replica: replica.in_flight)
        return Choice(best, "one by one", hold=best.in_flight > 0, ttft_s=0.1)


class House:
    def __init__(self, *names, **limits):
        self.now = 100.0
        self.fleet = FleetState()
        self.dispatcher = Dispatcher(
            self.fleet, OneByOne(), Random(1), self, hold=HoldLimits(**limits)
        )
        for name in names:
            replica = self.fleet.add(name, f"http://{name}")
            self.dispatcher.models_seen(replica, ["m"])
            self.dispatcher.health_seen(replica, self.now, healthy=True, reason="")

    def request_ended(self, request, replica, now):
        pass

    def policy_failed(self, error):
        raise error

    def health_changed(self, change):
        pass

    def arrive(self, name, **more):
        request = waiting(name, self.now, model="m", streamed=True, **more)
        return request, list(self.dispatcher.request_arrived(request, self.now))

    def end(self, request):
        attempt = request.attempt
        self.dispatcher.headers_received(attempt, 200, self.now)
        actions = list(self.dispatcher.progress(attempt, 5, self.now))
        return actions + list(self.dispatcher.attempt_ended(attempt, self.now))


def test_what_would_wait_past_its_objective_is_refused_as_it_arrives():
    house = House("a", shed_late=True)
    ended = []
    for number in range(5):  # one a second is sent
        request, actions = house.arrive(f"q{number}", ttft_slo_s=2.0)
        assert [type(action) for action in actions] == [Send]
        house.now += 1.0
        house.end(request)
        ended.append(request)
    first, _ = house.arrive("first", ttft_slo_s=2.0)
    kept = []
    for number in range(8):
        request, actions = house.arrive(f"w{number}", ttft_slo_s=2.0)
        if not actions:
            kept.append(request)
            continue
        (refuse,) = actions
        assert (refuse.status, refuse.code) == (429, "overloaded")
        assert refuse.retry_after_s >= 1
    assert 1 <= len(kept) <= 3
    assert house.dispatcher.counters.shed_late == 8 - len(kept)
    # A more urgent one has its turn before them, and none of them goes for it.
    _, actions = house.arrive("urgent", ttft_slo_s=2.0, priority=-1)
    assert actions == []
    # Nor is one refused that has no objective.
    _, actions = house.arrive("patient", ttft_slo_s=None)
    assert actions == []
    house.now += 3.0
    actions = house.end(first)
    refused = [action for action in actions if isinstance(action, Refuse)]
    assert {action.request for action in refused} >= set(kept)  # it is too late for them


def test_by_default_nothing_is_refused_for_being_late():
    house = House("a")
    house.arrive("first")
    for number in range(20):
        _, actions = house.arrive(f"w{number}", ttft_slo_s=0.2)
        assert actions == []


def test_how_fast_requests_are_sent_fades():
    outflow = Outflow()
    for second in range(60):
        outflow.sent(0, float(second))
        outflow.sent(5, float(second))
    assert outflow.rate(0, 60.0) == pytest.approx(2.0, rel=0.15)
    assert outflow.rate(3, 60.0) == pytest.approx(1.0, rel=0.15)
    assert outflow.rate(6, 60.0) == 0.0
    assert outflow.rate(0, 90.0) < 0.01
    for priority in range(1000):
        outflow.sent(priority, 60.0)
    assert outflow.rate(64, 60.0) == 0.0  # so many are told apart and no more


def test_with_room_nobody_waits():
    house = House("a", "b")
    for name in "qr":
        request, (action,) = house.arrive(name)
        assert isinstance(action, Send)
        assert request.state is State.SENT
    assert house.dispatcher.counters.held == 0


def test_who_waits_goes_on_when_an_answer_ends():
    house = House("a")
    first, _ = house.arrive("q")
    patient, actions = house.arrive("patient", ttft_slo_s=20.0)
    urgent, more = house.arrive("urgent")
    assert actions == more == []
    assert house.dispatcher.counters.held == 2
    house.now += 1.0
    (sent,) = house.end(first)
    assert sent.attempt.request is urgent
    (sent,) = house.end(urgent)
    assert sent.attempt.request is patient


def test_too_many_that_wait_means_that_the_least_urgent_is_told_so():
    house = House("a", max_requests=2)
    house.arrive("q")
    for name in ("r", "s"):
        _, actions = house.arrive(name)
        assert actions == []
    unimportant, (refuse,) = house.arrive("unimportant", priority=2)
    assert isinstance(refuse, Refuse)
    assert (refuse.request, refuse.status, refuse.code) == (unimportant, 429, "overloaded")
    assert refuse.retry_after_s >= 1
    urgent, (refuse,) = house.arrive("urgent", priority=-2)
    assert refuse.request.request_id == "s"
    assert urgent.state is State.HELD
    assert house.dispatcher.counters.shed == 2


def test_too_many_tokens_that_wait_are_too_many():
    house = House("a", max_tokens=5000)
    house.arrive("q")
    _, actions = house.arrive("r", prompt_tokens=4000)
    assert actions == []
    _, (refuse,) = house.arrive("s", prompt_tokens=2000)
    assert (refuse.request.request_id, refuse.status) == ("s", 429)


def test_who_waits_is_not_moved_when_a_replica_dies():
    house = House("a", "b")
    for name in "qr":
        house.arrive(name)
    held, _ = house.arrive("held")
    dead = house.fleet.replicas["a"]
    lost = next(r for r in house.dispatcher.open if r.attempt and r.attempt.replica is dead)
    house.dispatcher.health_seen(dead, house.now, healthy=False, reason="gone")
    house.dispatcher.attempt_failed(lost.attempt, Failure.RESET, house.now)
    assert held.state is State.HELD
    assert held.attempts == 0
    assert lost.attempt.replica.name == "b"
    for request in [r for r in house.dispatcher.open if r is not held]:
        house.end(request)
    assert held.attempt.replica.name == "b"


def test_a_long_prompt_is_overtaken_for_a_bounded_time_only():
    house = House("a")
    running, _ = house.arrive("first")
    long, _ = house.arrive("long", prompt_tokens=32_000, ttft_slo_s=9.0)
    served_s = None
    for number in range(400):
        house.now += 0.1
        house.arrive(f"short{number}", prompt_tokens=100, ttft_slo_s=2.0)
        (sent, *_) = house.end(running)
        running = sent.attempt.request
        if running is long:
            served_s = house.now - 100.0
            break
    assert served_s is not None
    assert served_s <= 9.0 + SETBACK_S


@pytest.mark.parametrize("enabled", [True, False])
def test_one_switch_turns_waiting_off(enabled):
    house = House("a", enabled=enabled)
    house.arrive("q")
    _, actions = house.arrive("r")
    assert bool(actions) is not enabled
