"""How a trace is replayed."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex
from typing import Literal, TypeAlias

from policies.slo import Slo

Endpoint: TypeAlias = Literal["chat", "completions"]

PATHS: dict[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
}

DEFAULT_SLO = Slo(ttft_s=2.0, tpot_s=0.06)


@dataclass(slots=True, frozen=True, kw_only=True)
class ReplayOptions:
    """Where to send a trace and how."""

    url: str
    """Base URL of the server, without ``/v1``."""

    model: str | None = None
    """Model to ask for; None: the first that the server lists."""

    endpoint: Endpoint = "chat"
    """Which API is spoken."""

    slo: Slo = DEFAULT_SLO
    """What counts as goodput."""

    timeout_s: float = 600.0
    """A request that has not ended after this time has failed."""

    speed: float = 1.0
    """For simulated replicas that run at ``--speed K``: send K times as fast, and report times
    multiplied by K, which makes them times of the simulated model. Other times in these options
    are times of the model too."""

    salt: str = field(default_factory=lambda: token_hex(4))
    """Part of every prompt's text. A fresh one for each run keeps a prefix cache from knowing the
    prompts of the run before; an equal one gives equal prompts."""

    api_key: str | None = field(default=None, repr=False)
    """Sent as bearer token; never reported."""
