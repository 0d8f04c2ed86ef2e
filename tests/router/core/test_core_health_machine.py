"""Any sequence of events of a fleet's health, against what must always be true."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.core.fleet_health import FleetHealth
from router.core.health import Cause, Health, HealthSettings
from router.core.slow_start import SlowStartSettings

MODELS = st.sampled_from([frozenset(), {"m"}, {"m"}, {"m"}, {"m", "adapter"}, {"other"}])
STATUSES = st.sampled_from([200, 200, 400, 404, 429, 500, 502, 503])
LAWFUL = {
    Health.DOWN: {Health.READY, Health.HALF_OPEN, Health.DRAINING},
    Health.READY: {Health.DOWN, Health.EJECTED, Health.DRAINING},
    Health.WARMING: {Health.DOWN, Health.EJECTED, Health.READY, Health.DRAINING},
    Health.EJECTED: {Health.DOWN, Health.HALF_OPEN, Health.DRAINING},
    Health.HALF_OPEN: {Health.DOWN, Health.EJECTED, Health.WARMING, Health.DRAINING},
    Health.DRAINING: {Health.DOWN, Health.WARMING, Health.EJECTED, Health.HALF_OPEN},
}
HARD = {Cause.STALL, Cause.PROBE_FAILED, Cause.PROBE_SILENT}


@dataclass(eq=False)
class Replica:
    """A replica, and what the test knows of it."""

    health: object
    sent: list[float] = field(default_factory=list)
    state: Health = Health.DOWN

    @property
    def in_flight(self):
        return len(self.sent)


class Machine(RuleBasedStateMachine):
    """Drives a fleet as a dispatcher would, and as no dispatcher should."""

    @initialize(
        seed=st.integers(0, 1000),
        models=st.lists(MODELS, min_size=1, max_size=6),
        panic_share=st.sampled_from([0.0, 0.5, 1.0]),
        max_ejected=st.sampled_from([0.1, 0.5, 1.0]),
        spare=st.booleans(),
    )
    def begin(self, seed, models, panic_share, max_ejected, spare):
        self.now = 100.0
        self.rng = Random(seed)
        self.spare = spare
        self.settings = HealthSettings(
            panic_share=panic_share,
            max_ejected=max_ejected,
            slow_start=SlowStartSettings(warm_tokens=5_000),
        )
        self.fleet = FleetHealth(self.settings, self.rng)
        self.fleet.can_spare = lambda names, now: self.spare
        self.replicas = []
        for number, served in enumerate(models):
            health = self.fleet.join(f"r{number}", cold=number > 3)
            health.models = frozenset(served)
            self.replicas.append(Replica(health))
        self.look_at_all(healthy=True)

    def pick(self, number):
        return self.replicas[number % len(self.replicas)]

    def told(self, change):
        """A change must be lawful, and must be the one that was seen."""
        if change is None:
            return
        replica = next(r for r in self.replicas if r.health.name == change.replica)
        assert change.before is replica.state
        assert change.at_s == self.now
        assert change.detail
        if change.before is change.after:
            assert "; not ejected: " in change.detail
        else:
            assert change.after in LAWFUL[change.before]
            replica.state = change.after
        if change.after is Health.EJECTED and change.before is not Health.HALF_OPEN:
            self.ejected(replica, change.cause)

    def ejected(self, replica, cause):
        """Ejecting left the fleet able to go on."""
        if cause is Cause.DRAIN_ENDED:
            return
        models = replica.health.models
        peers = [
            r
            for r in self.replicas
            if r is not replica
            and r.health.reachable
            and (not models or not r.health.models or models & r.health.models)
        ]
        good = [r for r in peers if r.health.in_service]
        assert good
        if cause in HARD:
            return
        for model in models:
            assert any(not r.health.models or model in r.health.models for r in good)
        out = len(peers) - len(good) + 1
        assert out <= max(1, self.settings.max_ejected * (len(peers) + 1))
        if cause is Cause.GRAY:
            assert self.spare

    @rule(span_s=st.sampled_from([0.0, 0.1, 1.0, 7.0, 40.0]))
    def time_passes(self, span_s):
        self.now += span_s
        for change in self.fleet.tick(self.now):
            self.told(change)

    @rule(number=st.integers(0, 5), healthy=st.sampled_from([True, True, False]))
    def look(self, number, healthy):
        replica = self.pick(number)
        self.told(self.fleet.seen(replica.health, self.now, healthy=healthy, reason="said so"))

    @rule(healthy=st.sampled_from([True, True, True, False]))
    def look_at_all(self, healthy):
        for number in range(len(self.replicas)):
            self.look(number, healthy)

    @rule(tokens=st.integers(0, 20_000))
    def arrive(self, tokens):
        """Route a request as the dispatcher does."""
        serving = self.fleet.in_service(self.replicas)
        probe = self.fleet.probe(self.replicas, tokens, self.now)
        offered = self.fleet.offered(serving, self.now) if serving else ()
        assert bool(offered) == bool(serving)
        chosen = probe
        if probe is not None:
            assert probe.health.state is Health.HALF_OPEN
            assert probe.health.probe_sent_s is None
        elif offered:
            chosen = self.rng.choice(list(offered))
        if chosen is not None:
            self.fleet.dispatched(chosen, serving, tokens, self.now)
            chosen.sent.append(self.now)

    @rule(
        number=st.integers(0, 5),
        place=st.integers(0, 50),
        status=STATUSES,
        retry_after_s=st.none() | st.floats(-1, 1e9),
        counts=st.booleans(),
    )
    def answer(self, number, place, status, retry_after_s, counts):
        replica = self.pick(number)
        if replica.sent:
            sent_s = replica.sent.pop(place % len(replica.sent))
            change = self.fleet.answered(
                replica.health,
                status,
                sent_s,
                self.now,
                retry_after_s=retry_after_s,
                counts=counts,
            )
            self.told(change)
            assert replica.health.busy_until_s <= self.now + self.settings.max_busy_s
            if status < 500 and change is not None:
                assert change.after is not Health.EJECTED

    @rule(number=st.integers(0, 5), age_s=st.sampled_from([0.0, 0.0, 5.0]))
    def fail_in_a_row(self, number, age_s):
        replica = self.pick(number)
        before = replica.health.ejected_total
        for _ in range(5):
            self.told(self.fleet.failed(replica.health, self.now - age_s, self.now))
        assert replica.health.ejected_total <= before + 1

    @rule(number=st.integers(0, 5), counts=st.booleans())
    def break_all(self, number, counts):
        replica = self.pick(number)
        before = replica.health.ejected_total
        for sent_s in replica.sent:
            self.told(self.fleet.failed(replica.health, sent_s, self.now, counts=counts))
        replica.sent.clear()
        assert replica.health.ejected_total <= before + counts

    @rule(number=st.integers(0, 5), tokens=st.integers(0, 100))
    def stream(self, number, tokens):
        replica = self.pick(number)
        for sent_s in replica.sent:
            self.told(self.fleet.streamed(replica.health, tokens, sent_s, self.now))

    @rule(number=st.integers(0, 5))
    def client_leaves(self, number):
        replica = self.pick(number)
        if replica.sent:
            self.fleet.left(replica.health, replica.sent.pop())

    @rule(number=st.integers(0, 5))
    def stall(self, number):
        replica = self.pick(number)
        self.told(self.fleet.stalled(replica.health, "silent", self.now))

    @rule(number=st.integers(0, 5), weight=st.floats(0, 1), eject=st.booleans())
    def slow(self, number, weight, eject):
        health = self.pick(number).health
        self.told(self.fleet.slowed(health, weight, "slow", self.now, eject=eject))

    @rule(spare=st.booleans())
    def load_changes(self, spare):
        self.spare = spare

    @rule(number=st.integers(0, 5), until_restart=st.booleans())
    def drain(self, number, until_restart):
        health = self.pick(number).health
        self.told(self.fleet.drain(health, "asked", self.now, until_restart=until_restart))

    @rule(number=st.integers(0, 5))
    def undrain(self, number):
        self.told(self.fleet.undrain(self.pick(number).health, "asked", self.now))

    @invariant()
    def every_change_was_told(self):
        for replica in self.replicas:
            assert replica.health.state is replica.state

    @invariant()
    def somebody_serves_while_anybody_can_be_reached(self):
        reachable = [r for r in self.replicas if r.health.reachable]
        offered = self.fleet.in_service(self.replicas)
        assert set(map(id, offered)) <= set(map(id, reachable))
        well = {id(r) for r in reachable if r.health.in_service}
        assert well <= set(map(id, offered))
        if self.settings.panic_share:
            assert bool(offered) == bool(reachable)

    @invariant()
    def weights_are_shares(self):
        for replica in self.replicas:
            assert 0 < replica.health.weight(self.now) <= 1
            assert 0 <= replica.health.credit <= 2
            assert replica.health.snapshot(self.now)["state"] == replica.state.value

    @invariant()
    def without_limits_the_policy_sees_everyone(self):
        ready = [r for r in self.replicas if r.health.state is Health.READY]
        free = [r for r in ready if not r.health.limited and r.health.busy_until_s <= self.now]
        offered = self.fleet.offered(ready, self.now) if ready else []
        assert {id(r) for r in free} <= {id(r) for r in offered}


TestHealthMachine = Machine.TestCase
TestHealthMachine.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
