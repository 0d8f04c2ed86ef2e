"""One task: a workload, a policy and a seed make one row. It may run in any process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from loadgen.contender import parse_contender
from loadgen.simulate.capacity import DEFAULT_TOLERANCE, WIDE_STEP, highest_scale
from loadgen.simulate.curves import Curves, LoadLog, distribution
from loadgen.simulate.results import Row, row_of
from loadgen.simulate.simulation import Simulation
from loadgen.simulate.workload import plan

if TYPE_CHECKING:
    from loadgen.simulate.settings import Settings
    from loadgen.simulate.workload import Workload
    from loadgen.trace.selection import Selection


LEAST_S = 10.0
"""In less time a fleet is not loaded but hit once: then no rate is too high."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Search:
    """A search for the capacity."""

    target: float
    """Share of requests that has to meet the objective."""

    tolerance: float = DEFAULT_TOLERANCE
    step: float = WIDE_STEP
    """The first step; see :func:`loadgen.simulate.capacity.highest_scale`."""

    least_s: float = LEAST_S
    """No rate is tried at which all requests arrive in less than this."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Task:
    """What to simulate."""

    selection: Selection
    policy: str
    """As :func:`loadgen.contender.parse_contender` takes it."""

    seed: int
    """Of the policy and of polls; that of the trace stands in ``selection``."""

    settings: Settings
    rate_scale: float = 1.0
    """Factor on the trace's rate; where a search begins."""

    search: Search | None = None
    curves: bool = False
    """Whether a picture is wanted too."""


class Point(msgspec.Struct, frozen=True):
    """A rate, and what came of it."""

    rate_rps: float
    goodput: float


class Finished(msgspec.Struct, frozen=True):
    """What came of a task."""

    row: Row
    points: list[Point]
    """Of a search: every rate at which it did not stop for too many misses."""

    curves: Curves | None = None


def perform(task: Task) -> Finished:
    """Do ``task``.

    Raises:
        TraceError: There is no such trace, or it cannot be read.
        PolicyError: There is no such policy.
        ValueError: A size in the settings makes no sense.
    """
    workload = plan(task.selection.open(), task.settings.slo)
    if task.search is None:
        return _finished(task, _run(task, workload, task.rate_scale), [])
    return _searched(task, task.search, workload)


def _searched(task: Task, search: Search, workload: Workload) -> Finished:
    most_misses = int((1 - search.target) * len(workload.requests) + 1e-9)
    points: list[Point] = []
    best: Simulation | None = None

    def is_met(scale: float) -> bool:
        nonlocal best
        simulation = _simulation(task, workload, scale, most_misses)
        met = simulation.run()
        if met:
            best = simulation
            points.append(Point(workload.rate_rps * scale, simulation.goodput))
        return met

    most = workload.duration_s / search.least_s
    scale = highest_scale(is_met, task.rate_scale, search.tolerance, search.step, most)
    if best is None or scale is None:
        return _finished(task, _run(task, workload, task.rate_scale), points)
    finished = _finished(task, best, points)
    row = finished.row
    row = msgspec.structs.replace(row, capacity_rps=row.rate_rps, capacity_beyond=scale >= most)
    return msgspec.structs.replace(finished, row=row)


def _finished(task: Task, simulation: Simulation, points: list[Point]) -> Finished:
    row = row_of(simulation, policy=task.policy, seed=task.seed)
    curves = None
    if simulation.load is not None:
        ttft_s = (o.ttft_s for o in simulation.outcomes if o.failure is None)
        curves = Curves(
            ttft_s=distribution(value for value in ttft_s if value is not None),
            load=simulation.load.load(),
        )
    return Finished(row, points or [Point(row.rate_rps, row.goodput)], curves)


def _run(task: Task, workload: Workload, scale: float) -> Simulation:
    simulation = _simulation(task, workload, scale, None)
    simulation.run()
    return simulation


def _simulation(
    task: Task, workload: Workload, scale: float, most_misses: int | None
) -> Simulation:
    contender = parse_contender(task.policy)
    return Simulation(
        workload,
        task.settings,
        contender.load(),
        seed=task.seed,
        rate_scale=scale,
        most_misses=most_misses,
        load=LoadLog() if task.curves else None,
        oracle=contender.is_oracle,
    )
