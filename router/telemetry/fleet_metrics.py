"""The metrics of each replica, read from :class:`router.core.fleet.FleetState`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.health import Health
from router.telemetry.pieces import counters, gauges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import Metric

    from router.core.fleet import FleetState
    from router.core.replica import Replica

_GAUGES: tuple[tuple[str, str, Callable[[Replica], float | None]], ...] = (
    (
        "ready",
        "1 when the replica gets requests; 0: unhealthy, or its models are not known yet.",
        lambda r: r.ready,
    ),
    (
        "metrics_failing",
        "1 when the last look at its metrics failed; it stays in service on own bookkeeping.",
        lambda r: r.poll_error is not None,
    ),
    (
        "in_flight_requests",
        "This router's own requests at the replica; exact.",
        lambda r: r.in_flight,
    ),
    (
        "in_flight_prompt_tokens",
        "Prompt tokens of this router's own requests at the replica.",
        lambda r: r.in_flight_prompt_tokens,
    ),
    (
        "in_flight_output_tokens",
        "Tokens streamed so far by this router's own requests at the replica.",
        lambda r: r.in_flight_output_tokens,
    ),
    (
        "running_requests",
        "Polled: requests in the engine's batch; absent when unknown or too old.",
        lambda r: r.running,
    ),
    (
        "waiting_requests",
        "Polled: requests in the engine's own queue; absent when unknown or too old.",
        lambda r: r.waiting,
    ),
    (
        "kv_occupancy_ratio",
        "Polled: share of the KV cache in use, 0 to 1; absent when unknown or too old.",
        lambda r: r.kv_occupancy,
    ),
)

_COUNTERS: tuple[tuple[str, str, Callable[[Replica], int]], ...] = (
    ("attempts", "Requests sent to the replica.", lambda r: r.dispatched_total),
    ("attempt_failures", "Requests that failed there.", lambda r: r.failed_total),
)


def fleet_metrics(fleet: FleetState, now: float) -> Iterator[Metric]:
    """Yield ``pointsman_replica_…``, one series a replica; what is unknown has none.

    Args:
        fleet: The fleet.
        now: Monotonic seconds, on the clock of the samples.
    """
    replicas = list(fleet.replicas.values())
    for name, text, read in _GAUGES:
        rows = ((r.name, read(r)) for r in replicas)
        known = (((replica,), float(value)) for replica, value in rows if value is not None)
        yield from gauges(f"pointsman_replica_{name}", text, ["replica"], known)
    yield from gauges(
        "pointsman_replica_sample_age_seconds",
        "Age of the last metrics read from the replica; absent when none was read ever.",
        ["replica"],
        [((r.name,), now - r.sampled_s) for r in replicas if r.sampled_s is not None],
    )
    yield from _health_metrics(replicas, now)
    yield from _learned_metrics(replicas)
    yield from gauges(
        "pointsman_replica_own_bookkeeping",
        "1 when the replica is judged by this router's own bookkeeping alone. missing: it "
        "publishes no gauges, or none was read yet; late: the last ones are too old; frozen: they "
        "stand still while requests come and go.",
        ["replica", "reason"],
        [((r.name, r.blind), 1.0) for r in replicas if r.blind is not None],
    )
    for name, text, count in _COUNTERS:
        totals = [((r.name,), count(r)) for r in replicas]
        yield from counters(f"pointsman_replica_{name}", text, ["replica"], totals)


def _health_metrics(replicas: Sequence[Replica], now: float) -> Iterator[Metric]:
    yield from gauges(
        "pointsman_replica_health",
        f"1 for the state that the replica is in: {', '.join(state.value for state in Health)}.",
        ["replica", "state"],
        [((r.name, r.health.state.value), 1.0) for r in replicas],
    )
    yield from gauges(
        "pointsman_replica_weight",
        "Share of its usual traffic that the replica may get, 0 to 1; less than 1 while it warms "
        "up or is slow.",
        ["replica"],
        [((r.name,), r.health.weight(now) if r.health.in_service else 0.0) for r in replicas],
    )
    yield from counters(
        "pointsman_replica_ejections",
        "Times that the replica was taken out of service for failing, stalling or being slow.",
        ["replica"],
        [((r.name,), r.health.ejected_total) for r in replicas],
    )


def _learned_metrics(replicas: Sequence[Replica]) -> Iterator[Metric]:
    known = [(r.name, r.forecast) for r in replicas if r.forecast is not None]
    for _, forecast in known:
        forecast.look()
    yield from gauges(
        "pointsman_replica_prefill_seconds_per_1k_tokens",
        "Learned: time that a prefill of 1,000 uncached tokens takes there by itself.",
        ["replica"],
        [((name,), forecast.speed.prefill_time_s(1000)) for name, forecast in known],
    )
    yield from gauges(
        "pointsman_replica_step_seconds",
        "Learned: time between two tokens of each stream there, with the streams of now.",
        ["replica"],
        [((name,), forecast.step_s) for name, forecast in known],
    )
    yield from gauges(
        "pointsman_replica_seats",
        "Learned: requests that its engine works on at once; absent while it took all that came.",
        ["replica"],
        [((name,), float(f.seats)) for name, f in known if f.seats is not None],
    )
    yield from gauges(
        "pointsman_replica_queue_seconds",
        "Expected: time until the prefill of a request sent there at the last choice would begin.",
        ["replica"],
        [((name,), forecast.queue_s) for name, forecast in known],
    )
