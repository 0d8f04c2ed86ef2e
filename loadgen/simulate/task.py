"""One task of a study: a workload, a policy and a seed make one row. It may run anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from loadgen.simulate.capacity import DEFAULT_TOLERANCE, highest_scale
from loadgen.simulate.results import Row, row_of
from loadgen.simulate.simulation import Simulation
from loadgen.simulate.workload import plan
from policies.registry import load

if TYPE_CHECKING:
    from loadgen.simulate.settings import Settings
    from loadgen.simulate.workload import Workload
    from loadgen.trace.selection import Selection


@dataclass(slots=True, frozen=True, kw_only=True)
class Search:
    """A search for the capacity."""

    target: float
    """Share of requests that has to meet the objective."""

    tolerance: float = DEFAULT_TOLERANCE


@dataclass(slots=True, frozen=True, kw_only=True)
class Task:
    """What to simulate."""

    selection: Selection
    policy: str
    seed: int
    """Of the policy and of polls; that of the trace stands in ``selection``."""

    settings: Settings
    rate_scale: float = 1.0
    """Factor on the trace's rate; where a search begins."""

    search: Search | None = None


def perform(task: Task) -> Row:
    """Do ``task``.

    Raises:
        TraceError: There is no such trace, or it cannot be read.
        PolicyError: There is no such policy.
        ValueError: A size in the settings makes no sense.
    """
    workload = plan(task.selection.open(), task.settings.slo)
    if task.search is None:
        simulation = _simulation(task, workload, task.rate_scale, None)
        simulation.run()
        return row_of(simulation, policy=task.policy, seed=task.seed)
    return _searched(task, task.search, workload)


def _searched(task: Task, search: Search, workload: Workload) -> Row:
    most_misses = int((1 - search.target) * len(workload.requests) + 1e-9)
    best: Simulation | None = None

    def is_met(scale: float) -> bool:
        nonlocal best
        simulation = _simulation(task, workload, scale, most_misses)
        met = simulation.run()
        if met:
            best = simulation
        return met

    scale = highest_scale(is_met, task.rate_scale, search.tolerance)
    if best is None or scale is None:
        best = _simulation(task, workload, task.rate_scale, None)
        best.run()
        return row_of(best, policy=task.policy, seed=task.seed)
    row = row_of(best, policy=task.policy, seed=task.seed)
    return msgspec.structs.replace(row, capacity_rps=row.rate_rps)


def _simulation(
    task: Task, workload: Workload, scale: float, most_misses: int | None
) -> Simulation:
    policy = load(task.policy, {})
    return Simulation(
        workload,
        task.settings,
        policy,
        seed=task.seed,
        rate_scale=scale,
        most_misses=most_misses,
    )
