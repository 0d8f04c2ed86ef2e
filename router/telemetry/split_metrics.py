"""The metrics of a fleet that splits requests; none in any other."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from policies.base import Role
from router.telemetry.pieces import counters, gauges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from router.core.books import Counters
    from router.core.replica import Replica


def split_metrics(seen: Counters, replicas: Sequence[Replica]) -> Iterator[Metric]:
    """Yield what is counted of split requests, and which pool is the bottleneck."""
    if all(r.transfer is None and r.role is Role.BOTH for r in replicas):
        return
    yield from counters(
        "pointsman_splits",
        "Requests whose prompt was sent to one replica and their answer asked of another. begun: "
        "all; unusable: those of which the answering replica had to compute the prompt as well, "
        "for the other one told nothing of its KV.",
        ["outcome"],
        [(("begun",), seen.split), (("unusable",), seen.prefills_unusable)],
    )
    yield from gauges(
        "pointsman_replica_role",
        "1 for what the replica is there for: prefill, decode or both.",
        ["replica", "role"],
        [((r.name, r.role.value), 1.0) for r in replicas],
    )
    yield from gauges(
        "pointsman_replica_kv_transfer_seconds_per_1k_tokens",
        "Learned: time that the KV of 1,000 tokens takes to come to the replica.",
        ["replica"],
        [((r.name,), 1000 * r.transfer.token_s) for r in replicas if r.transfer is not None],
    )
    yield from gauges(
        "pointsman_pool_busy_ratio",
        "How much of a pool is in use, 0 to 1: of prefill the share of its replicas that compute a "
        "prompt now, of decode the mean share of the KV cache. The pool that is nearer to 1 for "
        "long is the bottleneck.",
        ["pool"],
        [((pool,), share) for pool, share in _pools(replicas) if share is not None],
    )


def _pools(replicas: Sequence[Replica]) -> Iterator[tuple[str, float | None]]:
    ready = [r for r in replicas if r.ready]
    busy = [r.in_flight_prefills > 0 for r in ready if r.role is Role.PREFILL]
    full = [r.kv_occupancy for r in ready if r.role is Role.DECODE and r.kv_occupancy is not None]
    yield "prefill", fmean(busy) if busy else None
    yield "decode", fmean(full) if full else None
