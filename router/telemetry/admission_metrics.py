"""Metrics of what the fleet has taken on, and of what was refused for its sake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.telemetry.pieces import counters, gauges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from router.core.dispatcher import Dispatcher

_NONE: Sequence[str] = ()
_WHERE = (
    "after losing as many of its largest replicas as `headroom` says; below 0: so much is missing; "
    "the least of all kinds of replicas."
)


def admission_metrics(dispatcher: Dispatcher, now: float) -> Iterator[Metric]:
    """Yield them.

    Args:
        dispatcher: Who lets requests in.
        now: The time.
    """
    yield from counters(
        "pointsman_requests_over_headroom",
        "Requests refused because the fleet is kept fit to lose replicas.",
        _NONE,
        [((), dispatcher.counters.over_headroom)],
    )
    left = dispatcher.admission.left(now)
    if left is None:
        return
    yield from gauges(
        "pointsman_headroom_prefill_tokens_per_second",
        f"Uncached prompt tokens that the fleet could carry beside its load, {_WHERE}",
        _NONE,
        [((), left.prefill_tokens_per_s)],
    )
    if left.kv_tokens is not None:
        yield from gauges(
            "pointsman_headroom_kv_tokens",
            f"Tokens that its KV caches could hold beside what was promised, {_WHERE}",
            _NONE,
            [((), left.kv_tokens)],
        )
