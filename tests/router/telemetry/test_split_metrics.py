"""What the metrics tell of a fleet that splits requests."""

from __future__ import annotations

import pytest

from policies.base import Role
from policies.transfer import Transfer
from router.core.books import Counters
from router.core.fleet import FleetState
from router.core.replica import PartInSplits
from router.core.sample import Sample
from router.telemetry.split_metrics import split_metrics


def fleet(*roles):
    made = FleetState()
    for number, role in enumerate(roles):
        replica = made.add(f"r{number}", f"http://r{number}")
        made.models_seen(replica, ["m"])
        made.health_seen(replica, healthy=True, reason="", now=0.0)
        transfer = None if role is Role.PREFILL else Transfer(2e-6)
        made.role_seen(replica, PartInSplits(role, transfer=transfer))
    return list(made.replicas.values())


def told(counters, replicas):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in split_metrics(counters, replicas)
        for sample in family.samples
    }


def test_roles_splits_and_what_was_learned():
    replicas = fleet(Role.PREFILL, Role.DECODE, Role.BOTH)
    seen = told(Counters(split=7, prefills_unusable=2), replicas)
    assert seen["pointsman_splits_total", "begun"] == 7
    assert seen["pointsman_splits_total", "unusable"] == 2
    assert seen["pointsman_replica_role", "r0", "prefill"] == 1
    assert seen["pointsman_replica_role", "r2", "both"] == 1
    learned = "pointsman_replica_kv_transfer_seconds_per_1k_tokens"
    assert seen[learned, "r1"] == pytest.approx(2e-3)
    assert (learned, "r0") not in seen


def test_which_pool_is_the_bottleneck():
    replicas = fleet(Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    replicas[0].in_flight_prefills = 3
    for replica, occupancy in zip(replicas[2:], (0.5, 0.9), strict=True):
        replica.believe(Sample(kv_occupancy=occupancy))
    seen = told(Counters(), replicas)
    assert seen["pointsman_pool_busy_ratio", "prefill"] == 0.5
    assert seen["pointsman_pool_busy_ratio", "decode"] == pytest.approx(0.7)


def test_a_pool_of_which_nothing_is_known_tells_nothing():
    seen = told(Counters(), fleet(Role.DECODE, Role.BOTH))
    assert not any(name == "pointsman_pool_busy_ratio" for name, *_ in seen)


def test_other_fleets_have_none_of_it():
    made = FleetState()
    made.add("a", "http://a")
    assert list(split_metrics(Counters(), list(made.replicas.values()))) == []
