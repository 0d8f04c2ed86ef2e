"""What the admin plane and the metrics need to know of the running router."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.core.actions import Actions
    from router.core.dispatcher import Dispatcher
    from router.core.fleet import FleetState
    from router.telemetry.telemetry import Telemetry


@dataclass(slots=True, kw_only=True)
class Traffic:
    """The data plane at one moment; totals count from the start of the process."""

    client_connections: int = 0
    """Open client connections."""

    client_connections_total: int = 0
    """Client connections accepted."""

    upstream_idle: int = 0
    """Connections to replicas that wait in the pool."""

    upstream_busy: int = 0
    """Connections to replicas that carry a request, or are being opened."""

    buffered_bytes: int = 0
    """Request bodies held."""

    received_bytes_total: int = 0
    """Bytes of request bodies read from clients."""

    sent_bytes_total: int = 0
    """Bytes of answers written to clients."""

    refused_total: Mapping[int, int] = field(default_factory=dict)
    """Answers that the router gave before routing (bad framing, unknown path, body too large …),
    by status."""

    continuation_bytes: int = 0
    """What is remembered of streams and their requests, to continue them."""

    continuations_total: Mapping[str, int] = field(default_factory=dict)
    """Streams that broke, by what became of them."""

    continuation_requests_total: Mapping[str, int] = field(default_factory=dict)
    """Requests that asked for the rest of an answer, by method."""

    warm_up_total: Mapping[str, int] = field(default_factory=dict)
    """Prompts that replicas were asked to compute as they came up, by what became of it."""

    not_continued_total: Mapping[str, int] = field(default_factory=dict)
    """Streams that cannot be continued, or could not when they broke, by reason."""


class Status(Protocol):
    """The running router, as operators see it. All attributes are read-only."""

    @property
    def fleet(self) -> FleetState:
        """The fleet."""

    @property
    def dispatcher(self) -> Dispatcher:
        """Who decides."""

    @property
    def telemetry(self) -> Telemetry:
        """What was observed of requests that ended."""

    @property
    def policy_name(self) -> str:
        """The policy, as the configuration names it."""

    @property
    def started_s(self) -> float:
        """When the router started, on the clock of :meth:`now`."""

    def now(self) -> float:
        """The time, in monotonic seconds; the clock that the dispatcher is driven by."""

    def perform(self, actions: Actions) -> None:
        """Do what the dispatcher asks."""

    def traffic(self) -> Traffic:
        """The data plane's gauges and counters."""
