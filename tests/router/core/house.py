"""A dispatcher, a driver that only writes down what it is told, and a clock moved by hand."""

from __future__ import annotations

from random import Random

from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState


class House:
    """What tests of the dispatcher live in; ready replicas of one model, by their names."""

    def __init__(self, *names, policy, limits, hold=None):
        self.now = 100.0
        self.changes = []
        self.ended = []
        self.fleet = FleetState()
        self.dispatcher = Dispatcher(self.fleet, policy, Random(1), self, limits, hold=hold)
        for name in names:
            replica = self.fleet.add(name, f"http://{name}")
            self.joined(replica)
            self.dispatcher.models_seen(replica, ["m"])
            self.up(name)
        self.changes.clear()

    def joined(self, replica):
        """For those whose replicas differ."""

    # -- the observer ---------------------------------------------------------------------------

    def request_ended(self, request, replica, now):
        self.ended.append((request.state, replica.name if replica else None))

    def policy_failed(self, error):
        raise error

    def health_changed(self, change):
        self.changes.append((change.replica, change.before, change.after, change.cause))

    # -- what happens -----------------------------------------------------------------------------

    def up(self, name):
        return self.seen(name, healthy=True)

    def down(self, name):
        return self.seen(name, healthy=False)

    def seen(self, name, *, healthy):
        replica = self.fleet.replicas[name]
        return list(
            self.dispatcher.health_seen(replica, self.now, healthy=healthy, reason="looked at")
        )

    def after(self, seconds, step=0.25, *, at_first=False):
        """Let time pass as the live router does; returns what it asked for meanwhile.

        ``at_first``: no longer than until it asks for something.
        """
        actions, until = [], self.now + seconds
        while self.now < until and not (at_first and actions):
            self.now = min(self.now + step, until)
            actions += self.dispatcher.tick(self.now)
        return actions

    def fail(self, attempt, failure):
        return list(self.dispatcher.attempt_failed(attempt, failure, self.now))

    # -- what must be so --------------------------------------------------------------------------

    def check_all_is_over(self):
        """No request is open, and no replica is charged with anything."""
        assert not self.dispatcher.open
        assert self.dispatcher.budget.retrying == 0
        for replica in self.fleet.replicas.values():
            assert (replica.in_flight, replica.in_flight_prompt_tokens) == (0, 0)
            assert (replica.in_flight_prefills, replica.in_flight_prefill_tokens) == (0, 0)
            assert replica.forecast.context_tokens == 0
            assert not replica.forecast.prefills
            assert not replica.forecast.streams
            if replica.transfer is not None:
                assert replica.transfer.pending_tokens == 0
