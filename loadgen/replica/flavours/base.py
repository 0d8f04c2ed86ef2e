"""What tells one engine from another at its HTTP surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

    from loadgen.replica.exposition import Page
    from loadgen.replica.refusal import Refusal
    from loadgen.replica.simulated import SimulatedReplica


class Flavour(Protocol):
    """An engine's manners."""

    name: str

    checks_model: bool
    """Whether a request for an unknown model is refused."""

    early_headers: bool
    """Whether the head of a stream is sent at once, or with the first token."""

    def error(self, refusal: Refusal) -> bytes:
        """The JSON of an error."""

    def health(self, replica: SimulatedReplica) -> web.Response:
        """The answer of ``/health`` of a replica that is loaded."""

    def loading(self) -> web.Response:
        """The answer to anything while the model is loaded."""

    def metrics(self, replica: SimulatedReplica) -> bytes:
        """The metrics page."""

    def routes(self) -> Iterable[web.RouteDef]:
        """The paths that only this engine has."""


def openai_error(refusal: Refusal) -> bytes:
    """An error as vLLM and SGLang word it."""
    return msgspec.json.encode(
        {
            "error": {
                "message": refusal.message,
                "type": refusal.kind,
                "param": refusal.param,
                "code": refusal.status,
            }
        }
    )


def add_own_metrics(page: Page, replica: SimulatedReplica) -> None:
    """What no engine has: how well the simulation keeps up with its own clock."""
    driver = replica.driver
    page.gauge(
        "pointsman_replica_clock_lag_seconds",
        "Worst lag of the simulated replica behind its own clock in the last 5 to 10 s.",
        driver.lag.worst_s(replica.loop_time()),
    )
    page.gauge(
        "pointsman_replica_speed", "Virtual seconds in a real second.", replica.settings.speed
    )
    page.counter("pointsman_replica_steps_total", "Engine steps done.", replica.engine.steps_total)
