"""What is to be tried: which traces, which policies, on which fleet."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex
from typing import TYPE_CHECKING

from loadgen.replay.options import DEFAULT_SLO
from loadgen.trial.fleet import FleetSettings

if TYPE_CHECKING:
    from loadgen.trace.request import Trace
    from policies.slo import Slo

START_S = 4.0
"""What starting and ending the processes of one run takes on two cores, about."""


@dataclass(slots=True, frozen=True)
class Kill:
    """A replica dies in mid-run. Times are seconds of the trace as it is replayed."""

    after_s: float
    """Since the first request."""

    back_after_s: float | None = None
    """From then on, until it is started again with a cold cache; None: it stays away."""


@dataclass(slots=True, frozen=True)
class Case:
    """One run: a policy, and what is done to the fleet meanwhile."""

    policy: str
    kill: Kill | None = None

    @property
    def name(self) -> str:
        """What to call it in tables and files."""
        return self.policy if self.kill is None else f"{self.policy} + kill"


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """Every trace under every case, each run with fresh processes.

    So nothing of a run, neither caches nor counters nor what a killed replica left behind, is seen
    by the next one; and all runs can send the very same bytes.
    """

    traces: tuple[Trace, ...]
    cases: tuple[Case, ...]
    fleet: FleetSettings = field(default_factory=FleetSettings)
    slo: Slo = DEFAULT_SLO
    timeout_s: float = 600.0
    """Seconds of the simulated engines."""

    salt: str = field(default_factory=lambda: token_hex(4))
    """Part of the prompts' text, the same one for all runs."""

    @property
    def runs(self) -> list[tuple[Trace, Case]]:
        """What is run, in order."""
        return [(trace, case) for trace in self.traces for case in self.cases]

    @property
    def expected_s(self) -> float:
        """How long it will take at least, about."""
        replay_s = sum(trace.duration_s for trace, _ in self.runs) / self.fleet.speed
        return replay_s + START_S * len(self.runs)
