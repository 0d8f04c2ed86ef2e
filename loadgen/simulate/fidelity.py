"""Whether a simulation tells what a live router would do: the same requests through both.

``python -m loadgen.simulate.fidelity TRACE [POLICY [REPLICAS [SECONDS]]]`` starts that many
simulated replicas and a router as processes, replays the first SECONDS of TRACE through them in
real time, simulates the same, and prints both. The machine has to be idle: where replicas lag
behind their clocks, it is the live run that is wrong, and it says so.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import uvloop
from rich.console import Console
from rich.table import Table

from loadgen.engine.profile import load_profile
from loadgen.replay.rows import duration, percent
from loadgen.simulate.results import Row, row_of
from loadgen.simulate.settings import ReplicaPlan, Settings
from loadgen.simulate.simulation import Simulation
from loadgen.simulate.workload import plan as plan_workload
from loadgen.trace import transform
from loadgen.trace.names import open_trace
from loadgen.trial.fleet import FleetSettings
from loadgen.trial.plan import Case, Plan
from loadgen.trial.run import Outcome, run_case
from policies.registry import load
from policies.slo import Slo

if TYPE_CHECKING:
    from loadgen.trace.request import Trace

SLO = Slo(ttft_s=2.0, ttft_s_per_token=0.00025, ttft_free_tokens=4096, tpot_s=0.06)


_Value = TypeVar("_Value")


@dataclass(slots=True, frozen=True)
class Comparison:
    """The same requests, live and simulated."""

    live: Outcome
    simulated: Row

    @property
    def ttft_p50_s(self) -> tuple[float, float]:
        """Live and simulated."""
        return _there(self.live.report.ttft_s).p50, _there(self.simulated.ttft_p50_s)

    @property
    def ttft_p90_s(self) -> tuple[float, float]:
        """Live and simulated."""
        return _there(self.live.report.ttft_s).p90, _there(self.simulated.ttft_p90_s)

    @property
    def goodput(self) -> tuple[float, float]:
        """Share of requests within the objective, live and simulated."""
        return self.live.report.goodput.share, self.simulated.goodput


def compare(trace: Trace, policy: str, replicas: int, profile: str = "8b-h100") -> Comparison:
    """Do both; takes as long as the trace.

    Raises:
        TrialError: A process cannot be started, or ended unasked.
    """
    fleet = FleetSettings(replicas=replicas, profile=profile)
    trial = Plan(traces=(trace,), cases=(Case(policy),), fleet=fleet, slo=SLO)
    live = uvloop.run(run_case(trial, trace, trial.cases[0]))
    plans = [ReplicaPlan(profile=load_profile(profile))] * replicas
    simulation = Simulation(
        plan_workload(trace, SLO), Settings(replicas=plans, slo=SLO), load(policy, {})
    )
    simulation.run()
    return Comparison(live, row_of(simulation, policy=policy, seed=0))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print both, and how far the simulation is off."""
    report, row = comparison.live.report, comparison.simulated
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for heading in ("live", "simulated", "off by"):
        table.add_column(heading, justify="right")
    for name, show, (live, simulated) in (
        ("TTFT p50", duration, comparison.ttft_p50_s),
        ("TTFT p90", duration, comparison.ttft_p90_s),
        ("ITL p99", duration, (_there(report.itl_s).p99, _there(row.itl_p99_s))),
        ("TPOT p99", duration, (_there(report.tpot_s).p99, _there(row.tpot_p99_s))),
        ("E2E p50", duration, (_there(report.e2e_s).p50, _there(row.e2e_p50_s))),
        ("within SLO", percent, comparison.goodput),
    ):
        off = f"{simulated / live - 1:+.1%}" if live else "-"
        table.add_row(name, show(live), show(simulated), off)
    console.print(table)
    lag = duration(comparison.live.replica_lag_s)
    console.print(f"live replicas lagged behind their clocks by {lag}", highlight=False)


def main(arguments: list[str]) -> None:
    """The command line described above."""
    left_out = ("least_requests", "4", "60")[len(arguments) - 1 :]
    spec, policy, replicas, seconds = (*arguments, *left_out)
    trace = transform.jitter(open_trace(spec), 0)
    trace = transform.window(trace, 0.0, float(seconds))
    print_comparison(compare(trace, policy, int(replicas)), Console())


def _there(value: _Value | None) -> _Value:
    if value is None:
        raise ValueError("no request succeeded")
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
