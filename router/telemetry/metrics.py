"""All metrics of pointsman, read from the live objects when somebody asks.

Nothing here runs on the way of a request. Each list is copied before it is walked through: while a
page is being written, requests come and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily

from router import __version__
from router.telemetry.admission_metrics import admission_metrics
from router.telemetry.continuation_metrics import continuation_metrics
from router.telemetry.estimation_metrics import estimation_metrics
from router.telemetry.fleet_metrics import fleet_metrics
from router.telemetry.pieces import counters, gauges, histograms
from router.telemetry.split_metrics import split_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from router.core.dispatcher import Dispatcher
    from router.telemetry.status import Status, Traffic
    from router.telemetry.telemetry import Telemetry

_NONE: Sequence[str] = ()


class Metrics:
    """The metrics of one router and of its process.

    Args:
        status: The running router.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self.registry = CollectorRegistry()
        """Further collectors; those of the process and of the garbage collector are there."""
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def pieces(self) -> Iterator[Metric]:
        """Yield everything, in pieces of about a millisecond each."""
        status = self._status
        yield InfoMetricFamily(
            "pointsman_build",
            "Version and policy of this router; always 1.",
            {"version": __version__, "policy": status.policy_name},
        )
        yield from gauges(
            "pointsman_uptime_seconds",
            "Time since this router started.",
            _NONE,
            [((), status.now() - status.started_s)],
        )
        yield from fleet_metrics(status.fleet, status.now())
        yield from _dispatcher_metrics(status.dispatcher)
        yield from _retry_metrics(status.dispatcher)
        replicas = list(status.fleet.replicas.values())
        yield from split_metrics(status.dispatcher.counters, replicas)
        yield from estimation_metrics(status.dispatcher)
        yield from admission_metrics(status.dispatcher, status.now())
        yield from _request_metrics(status.telemetry)
        traffic = status.traffic()
        yield from _traffic_metrics(traffic)
        yield from continuation_metrics(traffic)
        yield from self.registry.collect()


def _dispatcher_metrics(dispatcher: Dispatcher) -> Iterator[Metric]:
    seen = dispatcher.counters
    chooser = dispatcher.chooser
    yield from gauges(
        "pointsman_open_requests",
        "Requests that were routed and have not ended; 0 when nothing goes on.",
        _NONE,
        [((), len(dispatcher.open))],
    )
    yield from counters(
        "pointsman_requests_arrived",
        "Requests that were complete and wanted a replica.",
        _NONE,
        [((), seen.arrived)],
    )
    yield from counters(
        "pointsman_attempts",
        "Tries on replicas; more than requests when tries failed and were repeated elsewhere.",
        _NONE,
        [((), seen.attempts)],
    )
    yield from counters(
        "pointsman_attempt_failures",
        "Tries that failed. connect: no connection; reset: it broke before the answer ended; "
        "protocol: the answer broke the rules of HTTP; stall: no token came for too long; "
        "gave_up: the engine ended its stream before the answer was complete.",
        ["kind"],
        [((failure.value,), count) for failure, count in seen.failed.items()],
    )
    yield from counters(
        "pointsman_policy_choices",
        "Choices of a replica, by the reason that the policy gave; fallback: the policy failed.",
        ["reason"],
        [((reason,), count) for reason, count in chooser.reasons.items()],
    )
    yield from counters(
        "pointsman_policy_errors",
        "Times that the policy raised or chose what it was not offered; see the log.",
        _NONE,
        [((), chooser.errors)],
    )


def _retry_metrics(dispatcher: Dispatcher) -> Iterator[Metric]:
    seen = dispatcher.counters
    yield from counters(
        "pointsman_answers_turned_away",
        "Error answers of replicas that no client saw, because the request went elsewhere.",
        ["status"],
        [((str(status),), count) for status, count in list(seen.turned_away.items())],
    )
    yield from counters(
        "pointsman_retries",
        "Tries made again: within the budget of retries.",
        _NONE,
        [((), dispatcher.budget.taken_total)],
    )
    yield from counters(
        "pointsman_retries_over_budget",
        "Tries that were not made, or later, because the budget of retries was spent.",
        _NONE,
        [((), dispatcher.budget.refused_total)],
    )
    yield from counters(
        "pointsman_hedges",
        "Second tries beside a first one whose first token was late. begun: all; won: those that "
        "answered first.",
        ["outcome"],
        [(("begun",), seen.hedged), (("won",), seen.hedges_won)],
    )
    yield from counters(
        "pointsman_replica_health_changes",
        "Changes of replicas' health, by cause. from equal to to: a replica that ought to have "
        "been ejected but for the sake of the fleet.",
        ["from", "to", "cause"],
        [
            ((before.value, after.value, cause.value), count)
            for (before, after, cause), count in list(dispatcher.fleet.health.transitions.items())
        ],
    )


def _request_metrics(telemetry: Telemetry) -> Iterator[Metric]:
    series = list(telemetry.series.items())
    yield from counters(
        "pointsman_requests_ended",
        "Requests by how they ended: done (answered to the end), refused (by the router), failed "
        "(no replica could answer, or one broke in mid-answer), gone (the client left). status: "
        "class of what the client got.",
        ["model", "replica", "end", "status"],
        (
            ((*names, state.value, _class(status)), count)
            for names, one in series
            for (state, status), count in list(one.ended.items())
        ),
    )
    yield from histograms(
        "pointsman_request_ttft_seconds",
        "Time from the complete request to the first byte of the answer's body; for a stream, "
        "the time to the first token. Only of 2xx answers.",
        ["model", "replica"],
        ((names, one.ttft_s) for names, one in series),
    )
    yield from histograms(
        "pointsman_request_e2e_seconds",
        "Time from the complete request to the end of its answer; only of answers that ended.",
        ["model", "replica", "status"],
        (
            ((*names, _class(status)), histogram)
            for names, one in series
            for status, histogram in list(one.e2e_s.items())
        ),
    )
    yield from histograms(
        "pointsman_request_prompt_tokens",
        "Length of prompts in tokens; estimated from bytes unless they came as token ids.",
        ["model"],
        [((model,), histogram) for model, histogram in telemetry.prompt_tokens.items()],
    )
    yield from histograms(
        "pointsman_event_loop_lag_seconds",
        "How late the router's event loop ran a timer; over 0.05 the router itself is the brake.",
        _NONE,
        [((), telemetry.loop_lag_s)],
    )


def _traffic_metrics(traffic: Traffic) -> Iterator[Metric]:
    yield from gauges(
        "pointsman_client_connections",
        "Open connections of clients.",
        _NONE,
        [((), traffic.client_connections)],
    )
    yield from counters(
        "pointsman_client_connections_accepted",
        "Connections accepted from clients.",
        _NONE,
        [((), traffic.client_connections_total)],
    )
    yield from gauges(
        "pointsman_upstream_connections",
        "Open connections to replicas. busy: carries a request; idle: waits in the pool.",
        ["state"],
        [(("busy",), traffic.upstream_busy), (("idle",), traffic.upstream_idle)],
    )
    yield from gauges(
        "pointsman_buffered_bytes",
        "Request bodies held; new requests get 503 at limits.max_buffered_bytes.",
        _NONE,
        [((), traffic.buffered_bytes)],
    )
    yield from counters(
        "pointsman_client_received_bytes",
        "Bytes of request bodies read from clients.",
        _NONE,
        [((), traffic.received_bytes_total)],
    )
    yield from counters(
        "pointsman_client_sent_bytes",
        "Bytes of answers written to clients.",
        _NONE,
        [((), traffic.sent_bytes_total)],
    )
    yield from counters(
        "pointsman_warm_up_requests",
        "Prompts that replicas were asked to compute as they came up (ok, failed).",
        ["outcome"],
        [((outcome,), count) for outcome, count in traffic.warm_up_total.items()],
    )
    yield from counters(
        "pointsman_refusals",
        "Answers that the router gave before it looked for a replica (malformed, unknown path, "
        "body too large, too slow, too many connections), by status.",
        ["status"],
        [((str(status),), count) for status, count in traffic.refused_total.items()],
    )


def _class(status: int) -> str:
    return f"{status}xx" if status else "none"
