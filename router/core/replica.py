"""One replica: what was polled of it, and this router's own attempts there."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from policies.base import Role
from router.core.frozen import Gauges
from router.core.health import HealthSettings
from router.core.pace_meter import PaceMeter
from router.core.replica_health import ReplicaHealth
from router.core.stall import Silence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.forecast import Forecast
    from policies.transfer import Transfer
    from router.core.sample import Sample


class PartInSplits(NamedTuple):
    """What part a replica has in splitting requests."""

    role: Role
    serves_whole: bool = True
    transfer: Transfer | None = None


class Replica:
    """The state of one replica; the ``ReplicaView`` that policies see.

    Only :class:`router.core.fleet.FleetState` and the dispatcher write to it.

    Args:
        name: Its name.
        url: Base URL, without a trailing slash.
        health: Its health among its peers'; one of its own when left out.
    """

    __slots__ = (
        "adapters",
        "dispatched_total",
        "engine",
        "failed_total",
        "forecast",
        "gauges",
        "health",
        "health_reason",
        "healthy",
        "in_flight",
        "in_flight_output_tokens",
        "in_flight_prefill_tokens",
        "in_flight_prefills",
        "in_flight_prompt_tokens",
        "kv_occupancy",
        "kv_tokens",
        "last_dispatch",
        "meter",
        "model_entries",
        "models",
        "name",
        "poll_error",
        "preempted_s",
        "role",
        "running",
        "sample",
        "sampled_s",
        "serves_whole",
        "silence",
        "transfer",
        "unseen",
        "unseen_at_look",
        "url",
        "waiting",
        "zone",
    )

    def __init__(self, name: str, url: str, health: ReplicaHealth | None = None) -> None:
        self.name = name
        self.url = url
        self.health = health or ReplicaHealth(name, HealthSettings(), Random(0))
        self.silence = Silence(0.0)
        self.meter = PaceMeter(0.0)
        self.role = Role.BOTH
        """What it is there for."""
        self.serves_whole = True
        """Whether it can serve a request all by itself."""
        self.zone = ""
        """Where it stands; empty: not known."""
        self.transfer: Transfer | None = None
        """What it takes to bring KV here; None: nobody brings any."""
        self.engine: str | None = None
        """The engine's name, once it is known."""
        self.healthy = False
        self.health_reason = "not polled yet"
        self.models: frozenset[str] | None = None
        """Models and adapters listed by the replica; empty set: it lists none, so it serves any
        (a server without ``/v1/models``); None: not known yet."""

        self.model_entries: Mapping[str, bytes] = {}
        """What the replica itself says of its models: a JSON object for each."""
        self.gauges = Gauges()
        """Whether the samples move as they should."""
        self.sample: Sample | None = None
        """The last sample read, however old."""
        self.sampled_s: float | None = None
        """When it was read."""
        self.preempted_s: float | None = None
        """When a sample last told of preemptions."""
        self.poll_error: str | None = None
        """Why the last metrics poll failed; None when it did not."""

        self.running: int | None = None
        self.waiting: int | None = None
        self.kv_occupancy: float | None = None
        self.kv_tokens: int | None = None
        """Tokens that its KV cache holds; once known it is believed for good."""
        self.adapters: frozenset[str] | None = None
        self.forecast: Forecast | None = None
        self.in_flight = 0
        self.in_flight_prompt_tokens = 0
        self.in_flight_output_tokens = 0
        self.in_flight_prefills = 0
        self.in_flight_prefill_tokens = 0
        self.unseen = 0
        self.unseen_at_look: int | None = None
        """``unseen`` when the look at the metrics began that is under way; None: none is."""
        self.last_dispatch = 0
        self.dispatched_total = 0
        self.failed_total = 0

    def __repr__(self) -> str:
        return f"<Replica {self.name} {'ready' if self.ready else self.health_reason}>"

    @property
    def ready(self) -> bool:
        """It can be reached, and its models are known; what it may get, says ``health``."""
        return self.healthy and self.models is not None

    @property
    def blind(self) -> str | None:
        """Why it is judged by own bookkeeping alone; None: it is not.

        ``missing``: it publishes no gauges, or none was read yet; ``late``: the last ones are too
        old; ``frozen``: they stand still while requests come and go.
        """
        sample = self.sample
        if sample is None or (sample.running is None and sample.waiting is None):
            return "missing"
        if self.running is not None or self.waiting is not None:
            return None
        return "frozen" if self.gauges.frozen else "late"

    def take_part(self, part: PartInSplits) -> None:
        """It was told, or tells, what part it has in splitting requests."""
        self.role, self.serves_whole, self.transfer = part

    def serves(self, model: str | None) -> bool:
        """Whether a request for ``model`` may go here; None means that none was named."""
        if self.models is None:
            return False
        return model is None or not self.models or model in self.models

    def believe(self, sample: Sample) -> None:
        """Make ``sample`` the polled values that policies see."""
        self.running = sample.running
        self.waiting = sample.waiting
        self.kv_occupancy = sample.kv_occupancy
        if sample.kv_blocks and sample.kv_block_tokens:
            self.kv_tokens = sample.kv_blocks * sample.kv_block_tokens
        self.adapters = sample.adapters

    def doubt(self) -> None:
        """Forget the polled values: from now on own bookkeeping alone."""
        self.running = self.waiting = self.kv_occupancy = None
