"""What is observed of each request, once, when it ends; and the policy's failures."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from router.core.health import Health
from router.core.request import State
from router.telemetry.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.health import Transition
    from router.core.replica import Replica
    from router.core.request import Request

log = logging.getLogger("pointsman.policy")
health_log = logging.getLogger("pointsman.health")

# A cached prefix answers in 20 ms, a 128k prompt at 70B takes 15 s, and queues come on top.
TTFT_BOUNDS_S: Final = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 120.0,
)  # fmt: skip
# From one embedding to reasoning that runs for half an hour.
E2E_BOUNDS_S: Final = (
    0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
)  # fmt: skip
PROMPT_BOUNDS_TOKENS: Final = tuple(float(2**power) for power in range(4, 21))
"""16 to 1 M tokens."""

MAX_MODELS = 256
"""Models and adapters with series of their own; a fleet may list thousands of adapters."""

NO_MODEL = "none"
"""Label of requests that name no model."""

OTHER_MODEL = "other"
"""Label of models that the replica does not list (the name comes from the client), or past
:data:`MAX_MODELS`."""

NO_REPLICA = "none"
"""Label of requests that were refused before any replica was chosen."""

WARN_EVERY_S = 60.0
"""A policy that fails fails at each request: one traceback in so many seconds is enough."""

# To look up a member of an enumeration takes Python 3.11 as long as calling a method.
_DONE: Final = State.DONE


class Series:
    """The series of one model on one replica.

    Args:
        prompt_tokens: The histogram of the model, shared by its replicas.
    """

    __slots__ = ("e2e_s", "ended", "prompt_tokens", "ttft_s")

    def __init__(self, prompt_tokens: Histogram) -> None:
        self.prompt_tokens = prompt_tokens
        self.ttft_s = Histogram(TTFT_BOUNDS_S)
        self.e2e_s: dict[int, Histogram] = {}
        """Of answers that ended, by class of their status."""
        self.ended: dict[tuple[State, int], int] = {}
        """Requests by end and by class of the status that the client got (2 for 2xx, 0: none)."""


class Telemetry:
    """The dispatcher's observer.

    Args:
        clock: Monotonic seconds; spaces the warnings about a failing policy.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.series: dict[tuple[str, str], Series] = {}
        """By model and replica."""
        self.prompt_tokens: dict[str, Histogram] = {}
        """By model."""
        self.loop_lag_s = Histogram((0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0))
        """How late the event loop woke; see :mod:`router.telemetry.lag`."""
        self._by_name: dict[tuple[str | None, Replica | None], Series] = {}
        self._clock = clock
        self._warned_s: float | None = None
        self._unreported = 0

    def request_ended(self, request: Request, replica: Replica | None, now: float) -> None:
        """Count a request that reached its end; on the hot path, so it does little."""
        facts = request.facts
        series = self._by_name.get((facts.model, replica))
        if series is None:
            series = self._find(facts.model, replica)
        state = request.state
        status = (request.status or 0) // 100
        key = (state, status)
        ended = series.ended
        ended[key] = ended.get(key, 0) + 1
        series.prompt_tokens.observe(facts.prompt_tokens)
        if request.first_byte_s is not None and status == 2:
            series.ttft_s.observe(request.first_byte_s - request.arrived_s)
        if state is _DONE:
            e2e_s = series.e2e_s.get(status)
            if e2e_s is None:
                e2e_s = series.e2e_s[status] = Histogram(E2E_BOUNDS_S)
            e2e_s.observe(now - request.arrived_s)

    def policy_failed(self, error: Exception) -> None:
        """Log a failure of the policy, with its traceback, once a minute."""
        now = self._clock()
        if self._warned_s is not None and now - self._warned_s < WARN_EVERY_S:
            self._unreported += 1
            return
        log.error(
            "the policy failed, so the replica with the fewest requests was taken"
            " (%d more failures since the last report)",
            self._unreported,
            exc_info=error,
        )
        self._warned_s = now
        self._unreported = 0

    def health_changed(self, change: Transition) -> None:
        """Log a change of a replica's health, with its reason; the fleet's health counts them."""
        bad = change.after in {Health.DOWN, Health.EJECTED} or change.before is change.after
        health_log.log(
            logging.WARNING if bad else logging.INFO,
            "%s: %s -> %s (%s): %s",
            change.replica,
            change.before.value,
            change.after.value,
            change.cause.value,
            change.detail,
        )

    def forget(self, replica: Replica) -> None:
        """Drop the series of a replica that left the fleet."""
        self.series = {k: v for k, v in self.series.items() if k[1] != replica.name}
        self._by_name = {k: v for k, v in self._by_name.items() if k[1] is not replica}

    def _find(self, model: str | None, replica: Replica | None) -> Series:
        label = self._label(model, replica)
        key = (label, replica.name if replica is not None else NO_REPLICA)
        series = self.series.get(key)
        if series is None:
            prompt_tokens = self.prompt_tokens.get(label)
            if prompt_tokens is None:
                prompt_tokens = self.prompt_tokens[label] = Histogram(PROMPT_BOUNDS_TOKENS)
            series = self.series[key] = Series(prompt_tokens)
        if label == model or model is None:  # a name that a client made up is never remembered
            self._by_name[model, replica] = series
        return series

    def _label(self, model: str | None, replica: Replica | None) -> str:
        if model is None:
            return NO_MODEL
        if model in self.prompt_tokens:
            return model
        listed = replica is not None and replica.models is not None and model in replica.models
        return model if listed and len(self.prompt_tokens) < MAX_MODELS else OTHER_MODEL
