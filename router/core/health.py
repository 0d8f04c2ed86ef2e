"""The states of a replica's health, why they change, and the settings of both.

::

                    health endpoint fails (from anywhere)
      DOWN ◀───────────────────────────────────────────────┐
       │ first seen up                                     │
       ├──────────────────────────────▶ READY ──evidence──▶ EJECTED
       │ seen up again                    ▲                 │    ▲
       │                           ramp over                │    │ a probe fails, or is silent
       └─────▶ HALF_OPEN ◀─back-off over──│─────────────────┘    │
                  │  └────────────────────│──────────────────────┘
                  └──a probe succeeds──▶ WARMING ──evidence──▶ EJECTED

The health endpoint decides only whether the process can be reached: engines answer it while their
core is dead. Whether a replica works is decided by the live requests that it gets. Draining is
asked for by people and stands beside all this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from router.core.slow_start import SlowStartSettings


class Health(StrEnum):
    """What a replica may be given."""

    DOWN = "down"
    """Nothing: its health endpoint does not answer, or was not seen yet."""
    READY = "ready"
    WARMING = "warming"
    """Less than its share, growing."""
    EJECTED = "ejected"
    """Nothing, for a time."""
    HALF_OPEN = "half_open"
    """One live request at a time, to see how it fares."""
    DRAINING = "draining"
    """Nothing new; what runs there goes on."""


class Cause(StrEnum):
    """Why a replica's health changed; few enough to be a metric's label."""

    HEALTH_UP = "health_up"
    HEALTH_DOWN = "health_down"
    FAILURES_IN_A_ROW = "failures_in_a_row"
    FAILURE_SHARE = "failure_share"
    STALL = "stall"
    GRAY = "gray"
    BACK_OFF_OVER = "back_off_over"
    PROBE_PASSED = "probe_passed"
    PROBE_FAILED = "probe_failed"
    PROBE_SILENT = "probe_silent"
    WARMED_UP = "warmed_up"
    DRAIN_ASKED = "drain_asked"
    DRAIN_ENDED = "drain_ended"


@dataclass(slots=True, frozen=True)
class Transition:
    """A change of a replica's health, to be logged and counted.

    ``before`` equals ``after`` when a replica ought to have been ejected but was not, because the
    fleet cannot do without it; ``detail`` says so.
    """

    replica: str
    before: Health
    after: Health
    cause: Cause
    detail: str
    at_s: float


@dataclass(slots=True, frozen=True, kw_only=True)
class HealthSettings:
    """When a replica is taken out of service, and how it comes back."""

    failures_in_a_row: int = 3
    """So many failed attempts without a good one between eject."""

    failure_share: float = 0.5
    """This share of failed attempts ejects, too."""

    failure_window_s: float = 60.0
    """Over so long; a replica sees few requests a second."""

    failure_window_requests: int = 10
    """If there were at least so many."""

    eject_s: float = 5.0
    """The first ejection lasts so long, each further one twice as long."""

    max_eject_s: float = 120.0
    """But never longer than this."""

    eject_jitter: float = 0.25
    """Ejections are made longer or shorter by up to this share."""

    forgive_s: float = 60.0
    """So long in service takes one ejection back, for the length of the next."""

    max_ejected: float = 0.5
    """Largest share of the replicas that can be reached that may be ejected; at least one may,
    the last one never. One that makes no token at all is ejected beyond that."""

    panic_share: float = 0.5
    """With fewer than this share of the reachable replicas in service, those that were ejected
    for failures or slowness are used as well; 0: never."""

    probe_tokens: int = 8
    """A half-open replica that has streamed so many tokens of one answer has passed."""

    probe_prompt_tokens: int = 8192
    """Longest prompt that is used as a probe."""

    probe_silent_s: float = 30.0
    """A probe that has passed nothing by then has failed."""

    busy_s: float = 0.5
    """A replica that answers 429 or 503 without Retry-After is passed over for so long."""

    max_busy_s: float = 30.0
    """A longer Retry-After is not believed."""

    refused_s: float = 1.0
    """A replica that no connection could be made to is passed over for so long."""

    slow_start: SlowStartSettings = field(default_factory=SlowStartSettings)
