"""Metrics of streams that go on elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.telemetry.pieces import counters, gauges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from router.telemetry.status import Traffic


def continuation_metrics(traffic: Traffic) -> Iterator[Metric]:
    """Yield them.

    Args:
        traffic: The data plane at this moment.
    """
    yield from counters(
        "pointsman_continuations",
        "Streams that broke after they had begun. continued: they went on at another replica to "
        "their end; ended: only their end was missing, and the router said it; failed: they were "
        "broken off with an error event; gone: the client left first.",
        ["outcome"],
        [((outcome,), count) for outcome, count in list(traffic.continuations_total.items())],
    )
    yield from counters(
        "pointsman_continuation_requests",
        "Requests that asked a replica for the rest of an answer. tokens: its prompt is the "
        "tokens so far; text: the text so far; again: the client's own request, for nothing had "
        "come.",
        ["method"],
        [((method,), count) for method, count in list(traffic.continuation_requests_total.items())],
    )
    yield from counters(
        "pointsman_not_continued",
        "Streams that cannot be continued, whether they break or not, and broken ones that could "
        "not, by reason; see the documentation of the reasons.",
        ["reason"],
        [((reason,), count) for reason, count in list(traffic.not_continued_total.items())],
    )
    yield from gauges(
        "pointsman_continuation_buffer_bytes",
        "What is remembered of streams and their requests, to continue them; past "
        "continuation.total_bytes further streams go without.",
        (),
        [((), traffic.continuation_bytes)],
    )
