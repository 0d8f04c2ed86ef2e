"""Metrics of what the router expects: waiting requests, predictions, caches, decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.core.accuracy import ERROR_BOUNDS
from router.core.wait_times import WAIT_BOUNDS_S
from router.telemetry.histogram import Histogram
from router.telemetry.pieces import counters, gauges, histograms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from router.core.accuracy import Accuracy
    from router.core.dispatcher import Dispatcher
    from router.core.hold import HoldQueue

_NONE: Sequence[str] = ()


def estimation_metrics(dispatcher: Dispatcher) -> Iterator[Metric]:
    """Yield them.

    Args:
        dispatcher: Who decides.
    """
    yield from _waiting_metrics(dispatcher)
    estimator, index, decisions = (
        dispatcher.estimator,
        dispatcher.prefix_index,
        dispatcher.decisions,
    )
    yield from histograms(
        "pointsman_ttft_prediction_error_ratio",
        "How far expected times to first token were off, as a share of what was seen; of "
        "streams only.",
        _NONE,
        [((), _histogram(estimator.ttft))],
    )
    yield from histograms(
        "pointsman_e2e_prediction_error_ratio",
        "How far expected times to the end of an answer were off, as a share of what was seen; "
        "the length of an answer is not known before.",
        _NONE,
        [((), _histogram(estimator.e2e))],
    )
    yield from gauges(
        "pointsman_prefix_index_blocks",
        "Blocks of prompts believed to be in replicas' caches; one held by two counts twice.",
        _NONE,
        [((), index.blocks)],
    )
    yield from gauges(
        "pointsman_prefix_index_bytes",
        "Memory of the prefix index, estimated.",
        _NONE,
        [((), index.bytes)],
    )
    if decisions is not None:
        yield from gauges(
            "pointsman_decisions_kept",
            "Decisions that can be explained.",
            _NONE,
            [((), len(decisions))],
        )
        yield from gauges(
            "pointsman_decisions_kept_bytes",
            "Memory of the decisions that can be explained.",
            _NONE,
            [((), decisions.bytes)],
        )


def waiting_by_reason(dispatcher: Dispatcher) -> dict[str, tuple[int, int]]:
    """Requests that wait in the router, and their prompt tokens, by why they wait.

    Args:
        dispatcher: Who lets them wait.

    Returns:
        ``better_moment``: their best replica would only queue them, or they would do harm there;
        ``no_replica``: none that serves them is in service; ``lost_replica``: theirs failed, and
        there is no other yet.
    """
    waiting = dispatcher.waiting
    queues: dict[str, list[HoldQueue]] = {
        "better_moment": [waiting.held],
        "no_replica": list(waiting.stranded.values()),
        "lost_replica": [waiting.broken],
    }
    return {
        why: (sum(len(queue) for queue in some), sum(queue.tokens for queue in some))
        for why, some in queues.items()
    }


def _waiting_metrics(dispatcher: Dispatcher) -> Iterator[Metric]:
    held = waiting_by_reason(dispatcher)
    seen = dispatcher.counters
    yield from gauges(
        "pointsman_held_requests",
        "Requests that wait in the router now. better_moment: their best replica would only queue "
        "them, or they would do harm there; no_replica: none that serves them is in service; "
        "lost_replica: theirs failed, and there is no other yet.",
        ["why"],
        [((why,), requests) for why, (requests, _) in held.items()],
    )
    yield from gauges(
        "pointsman_held_prompt_tokens",
        "Prompt tokens of the requests that wait in the router now.",
        ["why"],
        [((why,), tokens) for why, (_, tokens) in held.items()],
    )
    totals = (
        ("held", "Requests that had to wait in the router.", seen.held),
        ("shed", "Requests refused because too much waited already.", seen.shed),
        (
            "shed_late",
            "Requests refused because they would have waited past their objective.",
            seen.shed_late,
        ),
        ("expired", "Requests whose deadline passed while they waited.", seen.expired),
        ("stranded", "Requests that waited in vain for a replica to come back.", seen.stranded),
    )
    for name, text, total in totals:
        yield from counters(f"pointsman_requests_{name}", text, _NONE, [((), total)])
    times = Histogram(WAIT_BOUNDS_S)
    times.counts = list(dispatcher.wait_times.counts)
    times.total = dispatcher.wait_times.total_s
    yield from histograms(
        "pointsman_request_held_seconds",
        "How long requests waited in the router before they were sent; of those that waited.",
        _NONE,
        [((), times)],
    )


def _histogram(accuracy: Accuracy) -> Histogram:
    histogram = Histogram(ERROR_BOUNDS)
    histogram.counts = list(accuracy.counts)
    histogram.total = accuracy.sum
    return histogram
