"""Who may be ejected, and who is offered, with time moved by hand."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import pytest

from router.core.fleet_health import FleetHealth
from router.core.health import Cause, Health, HealthSettings
from router.core.slow_start import SlowStartSettings

if TYPE_CHECKING:
    from router.core.replica_health import ReplicaHealth

PLAIN = HealthSettings(eject_jitter=0.0)


@dataclass
class Standin:
    """As much of a replica as is looked at."""

    health: ReplicaHealth
    in_flight: int = 0

    def __repr__(self):
        return self.health.name


def build(count=4, *, settings=PLAIN, spare=None, models=frozenset({"m"})):
    fleet = FleetHealth(settings, Random(1))
    fleet.can_spare = spare
    replicas = []
    for number in range(count):
        health = fleet.join("abcdefgh"[number])
        health.models = models
        fleet.seen(health, 0.0, healthy=True, reason="fine")
        replicas.append(Standin(health))
    return fleet, replicas


def fail(fleet, replica, now=5.0, *, times=3):
    return [fleet.failed(replica.health, 1.0, now) for _ in range(times)][-1]


def come_back(fleet, replica, now):
    fleet.seen(replica.health, now, healthy=False, reason="refused")
    fleet.seen(replica.health, now, healthy=True, reason="fine")
    assert replica.health.state is Health.HALF_OPEN
    change = fleet.answered(replica.health, 200, now, now)
    assert change.after is Health.WARMING


def names(replicas):
    return "".join(sorted(replica.health.name for replica in replicas))


def test_three_failures_eject_and_the_change_is_counted():
    fleet, (a, *others) = build()
    change = fail(fleet, a)
    assert (change.replica, change.after, change.cause) == (
        "a",
        Health.EJECTED,
        Cause.FAILURES_IN_A_ROW,
    )
    assert fleet.transitions[Health.READY, Health.EJECTED, Cause.FAILURES_IN_A_ROW] == 1
    assert fleet.in_service([a, *others]) == others


@pytest.mark.parametrize("status", [200, 400, 413, 422])
def test_what_clients_do_wrong_ejects_nobody(status):
    fleet, (a, *_) = build()
    for _ in range(50):
        assert fleet.answered(a.health, status, 1.0, 2.0) is None
    assert a.health.state is Health.READY


@pytest.mark.parametrize("status", [429, 503])
def test_back_pressure_ejects_nobody_and_is_passed_over(status):
    fleet, (a, b, c, d) = build()
    for _ in range(50):
        fleet.answered(a.health, status, 1.0, 2.0, retry_after_s=3.0)
    assert a.health.state is Health.READY
    assert fleet.offered([a, b, c, d], 4.9) == [b, c, d]
    assert fleet.offered([a, b, c, d], 5.0) == [a, b, c, d]


def test_server_errors_eject():
    fleet, (a, *_) = build()
    changes = [fleet.answered(a.health, 500, 1.0, 2.0) for _ in range(3)]
    assert changes[2].after is Health.EJECTED


def test_a_poison_request_counts_against_one_replica_only():
    fleet, replicas = build()
    for _ in range(30):
        for number, replica in enumerate(replicas):
            fleet.answered(replica.health, 500, 1.0, 2.0, counts=number == 0)
    assert [replica.health.state for replica in replicas] == [Health.EJECTED] + [Health.READY] * 3


def test_when_all_are_busy_a_first_try_goes_to_any_and_a_further_one_to_none():
    fleet, (a, b) = build(2)
    fleet.answered(a.health, 429, 1.0, 2.0, retry_after_s=3.0)
    fleet.answered(b.health, 429, 1.0, 2.0, retry_after_s=2.0)
    assert fleet.offered([a, b], 3.0) == [a, b]
    assert fleet.offered([a, b], 3.0, again=True) == []
    assert fleet.soonest_s([a, b], 3.0) == 1.0


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (8, 4)])
def test_no_more_than_half_are_ejected_and_never_the_last(count, most):
    fleet, replicas = build(count)
    changes = [fail(fleet, replica) for replica in replicas]
    assert sum(replica.health.state is Health.EJECTED for replica in replicas) == most
    refusals = [change for change in changes if change.before is change.after]
    assert len(refusals) == count - most
    assert all("not ejected: " in change.detail for change in refusals)
    assert len(fleet.in_service(replicas)) == count - most


def test_a_refusal_is_told_of_once_in_a_while_and_evidence_is_gathered_anew():
    fleet, (a,) = build(1)
    assert fail(fleet, a, 5.0).before is Health.READY
    assert fail(fleet, a, 5.0) is None
    assert [fleet.failed(a.health, 6.0, 7.0) for _ in range(3)] == [None] * 3
    told = [fleet.failed(a.health, 8.0, 11.0) for _ in range(3)]
    assert told[2].detail.endswith("not ejected: no other replica is in service")


def test_what_makes_no_token_is_ejected_beyond_the_share_but_for_the_last():
    fleet, replicas = build(4)
    changes = [fleet.stalled(replica.health, "silent", 5.0) for replica in replicas]
    assert [change.after for change in changes] == [Health.EJECTED] * 3 + [Health.READY]


def test_the_only_one_that_serves_a_model_is_not_ejected_for_failures():
    fleet, (a, b, c) = build(3)
    a.health.models = frozenset({"m", "adapter"})
    change = fail(fleet, a)
    assert change.detail.endswith("not ejected: no other replica in service has adapter")
    b.health.models = frozenset({"m", "adapter"})
    assert fail(fleet, a, 20.0) is None
    fleet.failed(a.health, 6.0, 20.0)
    assert a.health.state is Health.READY
    for _ in range(3):
        fleet.failed(a.health, 21.0, 22.0)
    assert a.health.state is Health.EJECTED
    assert names([b, c]) == names(fleet.in_service([a, b, c]))


def test_replicas_of_another_model_cannot_stand_in():
    fleet, (a, b) = build(2)
    b.health.models = frozenset({"other"})
    assert fail(fleet, a).after is Health.READY
    assert fleet.stalled(a.health, "silent", 50.0).after is Health.READY


def test_a_replica_that_serves_anything_can_stand_in():
    fleet, (a, b) = build(2)
    b.health.models = frozenset()
    assert fail(fleet, a).after is Health.EJECTED


def test_a_slow_replica_stays_where_the_others_cannot_carry_the_load():
    asked = []
    fleet, (a, *_) = build(spare=lambda names, now: asked.append(names) or len(asked) > 1)
    change = fleet.slowed(a.health, 0.2, "5 x slower", 5.0, eject=True)
    assert change.detail == "5 x slower; not ejected: the others cannot carry the load"
    assert a.health.weight(5.0) == 0.2
    assert fleet.slowed(a.health, 0.2, "5 x slower", 6.0, eject=True).after is Health.EJECTED
    assert asked == [{"a"}, {"a"}]


def test_a_slow_replica_gets_less_until_it_is_well():
    fleet, replicas = build()
    assert fleet.slowed(replicas[0].health, 0.5, "2 x slower", 5.0, eject=False) is None
    share = simulate(fleet, replicas, 5.0, 4000)[0] / 4000
    assert share == pytest.approx(1.5 * 0.5 / 3.5, rel=0.02)
    fleet.slowed(replicas[0].health, 1.0, "well", 6.0, eject=False)
    assert fleet.offered(replicas, 6.0) is replicas


def simulate(fleet, replicas, now, requests):
    """Send requests to the first of those offered, ends at once: the worst policy for shares."""
    counts = [0] * len(replicas)
    for _ in range(requests):
        chosen = fleet.offered(replicas, now)[0]
        fleet.dispatched(chosen, replicas, 0, now)
        counts[replicas.index(chosen)] += 1
    return counts


def test_one_that_comes_back_gets_no_more_than_its_part_of_a_run():
    settings = HealthSettings(slow_start=SlowStartSettings(warm_tokens=10**9))
    fleet, replicas = build(8, settings=settings)
    come_back(fleet, replicas[0], 10.0)
    for now, weight in ((10.0, 0.1), (20.0, 0.5), (29.9, 0.995)):
        share = simulate(fleet, replicas, now, 4000)[0] / 4000
        assert share == pytest.approx(1.5 * weight / (7 + weight), rel=0.05)
    fleet.tick(30.0)
    assert fleet.offered(replicas, 30.0) is replicas


def test_one_that_comes_back_gets_no_more_than_its_part_of_what_is_in_flight():
    fleet, replicas = build(4)
    come_back(fleet, replicas[0], 10.0)
    for replica in replicas[1:]:
        replica.in_flight = 20
    now = 20.0
    assert replicas[0] in fleet.offered(replicas, now)
    # Its sixteenth makes 76 in flight, of weights 3.5 in all: 1.5 x 0.5 / 3.5 of them are 16.3.
    replicas[0].in_flight = 15
    assert replicas[0] in fleet.offered(replicas, now)
    replicas[0].in_flight = 16
    assert replicas[0] not in fleet.offered(replicas, now)


def test_when_all_come_back_together_all_get_their_part():
    fleet, replicas = build(4)
    for replica in replicas:
        come_back(fleet, replica, 10.0)
    counts = simulate(fleet, replicas, 11.0, 4000)
    assert sum(counts) == 4000
    assert max(counts) <= 1.5 * 1000 + 2


def test_a_half_open_replica_gets_one_request_at_a_time():
    fleet, (a, b, c, d) = build()
    everyone = [a, b, c, d]
    fail(fleet, a)
    assert fleet.probe(everyone, 100, 9.0) is None
    (change,) = fleet.tick(10.0)
    assert change.after is Health.HALF_OPEN
    assert fleet.in_service(everyone) == [b, c, d]
    assert fleet.probe(everyone, 8193, 10.0) is None
    assert fleet.probe(everyone, 100, 10.0) is a
    fleet.dispatched(a, [b, c, d], 100, 10.0)
    assert fleet.probe(everyone, 100, 10.0) is None
    fleet.left(a.health, 10.0)
    assert fleet.probe(everyone, 100, 11.0) is a
    fleet.dispatched(a, [b, c, d], 100, 11.0)
    assert fleet.streamed(a.health, 8, 11.0, 12.0).after is Health.WARMING
    assert fleet.probe(everyone, 100, 12.0) is None


def test_the_one_that_has_waited_longest_is_probed_first():
    fleet, (a, b, c, d) = build()
    fail(fleet, b, 4.0)
    fail(fleet, a, 5.0)
    fleet.tick(9.0)
    fleet.tick(10.0)
    assert fleet.probe([a, b, c, d], 100, 10.0) is b


def test_a_client_error_proves_nothing_of_a_half_open_replica():
    fleet, (a, *others) = build()
    fail(fleet, a)
    fleet.tick(10.0)
    fleet.dispatched(a, others, 100, 10.0)
    assert fleet.answered(a.health, 400, 10.0, 10.1) is None
    assert a.health.state is Health.HALF_OPEN
    assert fleet.probe([a], 100, 10.2) is a


def test_a_poison_probe_proves_nothing_of_a_half_open_replica():
    fleet, (a, *others) = build()
    fail(fleet, a)
    fleet.tick(10.0)
    fleet.dispatched(a, others, 100, 10.0)
    assert fleet.failed(a.health, 10.0, 10.1, counts=False) is None
    assert fleet.probe([a], 100, 10.2) is a


def test_a_probe_that_fails_makes_the_back_off_longer():
    fleet, (a, *others) = build()
    fail(fleet, a)
    fleet.tick(10.0)
    fleet.dispatched(a, others, 100, 10.0)
    change = fleet.failed(a.health, 10.0, 11.0)
    assert (change.cause, change.after) == (Cause.PROBE_FAILED, Health.EJECTED)
    assert fleet.soonest_s([a], 11.0) == 10.0


def test_with_too_few_in_service_the_ejected_are_used_too():
    fleet, replicas = build(4)
    a, b, c, d = replicas
    fail(fleet, a)
    fail(fleet, b)
    assert (names(fleet.in_service(replicas)), fleet.panic) == ("cd", False)
    fleet.seen(c.health, 6.0, healthy=False, reason="refused")
    assert (names(fleet.in_service(replicas)), fleet.panic) == ("abd", True)
    assert set(map(id, fleet.offered([a, b, d], 6.0))) == {id(a), id(b), id(d)}


def test_even_then_what_makes_no_token_is_used_only_when_there_is_nothing_else():
    fleet, replicas = build(5)
    a, b, c, d, e = replicas
    fail(fleet, a)
    fail(fleet, b)
    fleet.stalled(c.health, "silent", 5.0)
    assert (names(fleet.in_service(replicas)), fleet.panic) == ("abde", True)
    fleet.tick(10.0)
    assert c.health.state is Health.HALF_OPEN
    assert names(fleet.in_service(replicas)) == "abde"
    for replica in (a, b, d, e):
        fleet.seen(replica.health, 11.0, healthy=False, reason="refused")
    assert names(fleet.in_service(replicas)) == "c"
    fleet.seen(c.health, 12.0, healthy=False, reason="refused")
    assert (names(fleet.in_service(replicas)), fleet.panic) == ("", False)
    assert fleet.soonest_s(replicas, 12.0) is None


def test_without_panic_nothing_ejected_is_ever_used():
    fleet, replicas = build(2, settings=HealthSettings(panic_share=0.0))
    fail(fleet, replicas[0])
    fleet.seen(replicas[1].health, 6.0, healthy=False, reason="refused")
    assert fleet.in_service(replicas) == []


def test_the_first_back_after_an_outage_serves_at_once():
    fleet, replicas = build(3)
    for replica in replicas:
        fleet.seen(replica.health, 5.0, healthy=False, reason="refused")
    fleet.seen(replicas[1].health, 25.0, healthy=True, reason="fine")
    assert fleet.in_service(replicas) == [replicas[1]]
    assert fleet.offered([replicas[1]], 25.0) == [replicas[1]]


def test_draining_replicas_are_neither_offered_nor_counted():
    fleet, replicas = build(4)
    a, b, c, _ = replicas
    assert fleet.drain(a.health, "asked", 5.0).after is Health.DRAINING
    assert names(fleet.in_service(replicas)) == "bcd"
    assert fleet.stalled(a.health, "silent", 6.0) is None
    fail(fleet, b)
    assert fail(fleet, c).after is Health.READY
    assert fleet.undrain(a.health, "asked", 7.0).after is Health.WARMING
    assert names(fleet.in_service(replicas)) == "acd"


def test_a_replica_that_left_is_forgotten():
    fleet, replicas = build(2)
    fleet.leave("a")
    assert list(fleet.replicas) == ["b"]
    assert fail(fleet, replicas[1]).after is Health.READY
    with pytest.raises(KeyError):
        fleet.leave("a")


def test_a_stall_seen_twice_is_one_ejection():
    fleet, (a, *_) = build()
    assert fleet.stalled(a.health, "silent", 5.0).after is Health.EJECTED
    assert fleet.stalled(a.health, "silent", 5.1) is None
    assert a.health.ejected_total == 1


def test_nothing_is_looked_at_while_all_are_well():
    fleet, replicas = build()
    assert fleet.offered(replicas, 1.0) is replicas
    assert fleet.probe(replicas, 1, 1.0) is None


def test_a_replica_that_refuses_connections_is_passed_over_before_it_is_ejected():
    fleet, (a, b, c, d) = build()
    assert fleet.failed(a.health, 1.0, 5.0, refused=True) is None
    assert a.health.state is Health.READY
    assert fleet.offered([a, b, c, d], 5.9) == [b, c, d]
    assert fleet.offered([a, b, c, d], 6.0) == [a, b, c, d]
