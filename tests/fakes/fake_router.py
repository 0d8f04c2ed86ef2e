"""A router without sockets: real fleet, dispatcher and telemetry, and a data plane of numbers."""

from __future__ import annotations

from random import Random

from policies.base import RequestFacts
from policies.round_robin import RoundRobin
from router.core.actions import Send
from router.core.decisions import Decisions
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.request import Request
from router.core.sample import Sample
from router.telemetry.status import Traffic
from router.telemetry.telemetry import Telemetry


class FakeRouter:
    """Implements ``Status``; the time is what the test says."""

    def __init__(self, replicas=("a:1", "b:1"), models=("m",)):
        self.time_s = 100.0
        self.started_s = 90.0
        self.policy_name = "round_robin"
        self.numbers = Traffic()
        self.performed = []
        self.fleet = FleetState()
        self.telemetry = Telemetry(self.now)
        self.dispatcher = Dispatcher(
            self.fleet, RoundRobin(), Random(1), self.telemetry, decisions=Decisions()
        )
        for name in replicas:
            self.join(name, models)

    def now(self):
        return self.time_s

    def perform(self, actions):
        self.performed.extend(actions)

    def traffic(self):
        return self.numbers

    def join(self, name, models):
        replica = self.fleet.add(name, f"http://{name}")
        self.fleet.health_seen(replica, healthy=True, reason="ok")
        self.fleet.models_seen(replica, models)
        return replica

    def sample(self, name, **gauges):
        self.fleet.sampled(self.fleet.replicas[name], Sample(**gauges), self.time_s)

    def arrive(self, model="m", prompt_tokens=100):
        """A request comes; returns it, its attempt open if it was sent."""
        request = Request("r", RequestFacts(model, prompt_tokens), self.time_s)
        actions = self.dispatcher.request_arrived(request, self.time_s)
        assert (request.attempt is not None) == any(isinstance(a, Send) for a in actions)
        return request

    def serve(self, model="m", *, status=200, ttft_s=0.3, e2e_s=4.0, prompt_tokens=100):
        """A request comes and is answered to the end."""
        request = self.arrive(model, prompt_tokens)
        attempt, began_s = request.attempt, self.time_s
        self.dispatcher.headers_received(attempt, status, began_s)
        self.dispatcher.progress(attempt, 1, began_s + ttft_s)
        self.dispatcher.attempt_ended(attempt, began_s + e2e_s)
        return request
