"""A replica that is thought slow is tried again, even where the others would suffice."""

from __future__ import annotations

from random import Random

import pytest

from policies.base import RequestFacts
from policies.least_estimated_completion import LeastEstimatedCompletion
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.request import Request
from router.telemetry.telemetry import Telemetry

FACTS = {"model": "m", "prompt_tokens": 1000, "streamed": True}


class Fleet:
    """Idle replicas that prefill in so many seconds, asked for one answer at a time."""

    def __init__(self, prefill_s):
        self.now = 0.0
        self.prefill_s = prefill_s
        fleet = FleetState()
        self.dispatcher = Dispatcher(fleet, LeastEstimatedCompletion(), Random(0), Telemetry())
        for name in prefill_s:
            replica = fleet.add(name, f"http://{name}")
            self.dispatcher.models_seen(replica, ["m"])
            self.dispatcher.health_seen(replica, 0.0, healthy=True, reason="ok")
        self.tried = dict.fromkeys(prefill_s, 0)

    def ask(self):
        request = Request("r", RequestFacts(**FACTS), self.now)
        (send,) = self.dispatcher.request_arrived(request, self.now)
        attempt = send.attempt
        self.tried[attempt.replica.name] += 1
        self.now += self.prefill_s[attempt.replica.name]
        self.dispatcher.headers_received(attempt, 200, self.now)
        self.dispatcher.progress(attempt, 1, self.now)
        self.dispatcher.attempt_ended(attempt, self.now)

    def rest(self, seconds):
        for _ in range(int(seconds * 4)):
            self.now += 0.25
            self.dispatcher.tick(self.now)


def test_all_of_a_fleet_of_equals_are_tried_though_one_would_suffice():
    fleet = Fleet({"a": 0.02, "b": 0.02, "c": 0.02})
    for _ in range(60):
        fleet.ask()
        fleet.rest(2)
    assert all(fleet.tried.values())


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_replica_that_was_slow_once_is_asked_again(name):
    fleet = Fleet({"a": 0.02, "b": 0.02})
    fleet.prefill_s[name] = 2.0
    for _ in range(40):
        fleet.ask()
        fleet.rest(2)
    fleet.prefill_s[name] = 0.01
    before = fleet.tried[name]
    for _ in range(60):
        fleet.ask()
        fleet.rest(2)
    assert fleet.tried[name] > before + 10


def test_a_slow_replica_is_tried_rarely():
    fleet = Fleet({"a": 0.02, "b": 0.5})
    for _ in range(200):
        fleet.ask()
        fleet.rest(2)
    assert 2 <= fleet.tried["b"] <= 30


def test_an_idle_fleet_does_not_think_itself_ever_faster():
    fleet = Fleet({"a": 0.02, "b": 0.03, "c": 0.025})
    for _ in range(30):
        fleet.ask()
        fleet.rest(12)
    speeds = [r.forecast.speed for r in fleet.dispatcher.fleet.replicas.values()]
    before_s = min(speed.prefill_time_s(1000) for speed in speeds)
    fleet.rest(600)
    for speed in speeds:
        assert speed.prefill_time_s(1000) == pytest.approx(before_s)
