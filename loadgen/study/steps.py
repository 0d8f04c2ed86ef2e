"""The simulations of a study, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from loadgen.simulate.capacity import NARROW_STEP, WIDE_STEP
from loadgen.simulate.task import Finished, Search, Task
from loadgen.simulate.workers import Results, Step
from loadgen.study.cases import (
    ABLATED,
    FIRST,
    LEFT_OUT,
    LOADED,
    ORACLE,
    OWN,
    SWEPT,
    Fleet,
    Workload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from loadgen.study.store import Store
    from loadgen.trace.selection import Selection

Make: TypeAlias = Callable[[Results], Task | Finished | None]

TARGET = 0.95
STRICT_TARGET = 0.99

GUESS_STEP = 1.25
"""First step of a search that begins at the capacity under another policy."""

FINALISTS = 2
"""Baselines that are simulated with every seed; the others, seen to be worse, with one."""

LOAD = 0.8
"""Share of a capacity at which latencies are looked at."""


@dataclass(slots=True, frozen=True)
class Case:
    """A workload on a fleet."""

    workload: Workload
    fleet: Fleet

    @property
    def name(self) -> str:
        """Its name in keys."""
        return f"{self.fleet.name} {self.workload.name}"


@dataclass(slots=True, frozen=True, kw_only=True)
class Study:
    """What is simulated; the keys of its steps are made here and nowhere else."""

    cases: Sequence[Case]
    baselines: Sequence[str]
    seeds: int
    tolerance: float
    folder: Path | None = None
    limit: int | None = None
    oracle: bool = True
    thorough: bool = True
    """Whether there is more than capacities and latencies: another target, parts left out, sweeps
    over rates."""

    _steps: dict[str, Step] = field(default_factory=dict)

    def steps(self, store: Store) -> list[Step]:
        """All simulations; those that ``store`` knows are not made again."""
        self._steps.clear()
        for seed in range(self.seeds):
            for case in self.cases:
                self._capacities(case, seed)
        for case in self.cases:
            if case.fleet is not self.cases[0].fleet:
                continue
            if case.workload.name in LOADED:
                self._loads(case)
            if self.thorough:
                self._strict(case)
                if case.workload.name in ABLATED:
                    self._ablation(case)
                self._sweep(case)
        return [replace(step, make=partial(_unless_known, step, store)) for step in self.all()]

    def all(self) -> Iterator[Step]:
        """The steps as they were noted."""
        yield from self._steps.values()

    # -- keys ---------------------------------------------------------------------------------

    def capacity(self, case: Case, policy: str, seed: int) -> str:
        """The search for the capacity."""
        return f"{case.name} {policy} capacity {seed}"

    def strict(self, case: Case, policy: str) -> str:
        """The search for the capacity at the strict target."""
        return f"{case.name} {policy} strict 0"

    def load(self, case: Case, policy: str, of: str, share: float, seed: int) -> str:
        """A share of the capacity under the policy ``of``."""
        return f"{case.name} {policy} at {share:g} of {of} {seed}"

    # -- steps --------------------------------------------------------------------------------

    def _capacities(self, case: Case, seed: int) -> None:
        oracle = (ORACLE,) if self.oracle else ()
        for policy in (FIRST, OWN, *self.baselines, *oracle):
            key = self.capacity(case, policy, seed)
            task = self._task(case, policy, seed, TARGET)
            if seed == 0 and policy == FIRST:
                self._note(key, partial(_as_it_is, task))
                continue
            origin = self.capacity(case, FIRST if seed == 0 else policy, 0)
            step = GUESS_STEP if seed == 0 else NARROW_STEP
            make: Make = partial(_near, task, origin, step, 1.0)
            needs = [origin]
            if seed and policy in self.baselines:
                field_keys = {p: self.capacity(case, p, 0) for p in self.baselines}
                make = partial(_if_finalist, policy, field_keys, make)
                needs += field_keys.values()
            self._note(key, make, *needs)

    def _strict(self, case: Case) -> None:
        for policy in (FIRST, OWN, *self.baselines):
            task = self._task(case, policy, 0, STRICT_TARGET)
            origin = self.capacity(case, policy, 0)
            make = partial(_near, task, origin, GUESS_STEP, 0.85)
            self._note(self.strict(case, policy), make, origin)

    def _loads(self, case: Case) -> None:
        """Latencies at shares of the capacity of round_robin and of the measured policy."""
        for of, share in ((FIRST, LOAD), (OWN, LOAD), (OWN, 1.0)):
            origins = [self.capacity(case, of, seed) for seed in range(self.seeds)]
            for policy in (FIRST, OWN):
                for seed in range(self.seeds):
                    task = self._task(case, policy, seed, None)
                    make = partial(_at, task, origins, share)
                    self._note(self.load(case, policy, of, share, seed), make, *origins)

    def _ablation(self, case: Case) -> None:
        for policy in LEFT_OUT.values():
            origin = self.capacity(case, OWN, 0)
            make = partial(_near, self._task(case, policy, 0, TARGET), origin, GUESS_STEP, 1.0)
            self._note(self.capacity(case, policy, 0), make, origin)

    def _sweep(self, case: Case) -> None:
        origin = self.capacity(case, FIRST, 0)
        field_keys = {p: self.capacity(case, p, 0) for p in self.baselines}
        for policy in (FIRST, OWN, *self.baselines):
            for share in SWEPT:
                task = replace(self._task(case, policy, 0, None), curves=True)
                make: Make = partial(_at, task, [origin], share)
                needs = [origin]
                if policy in self.baselines:
                    make = partial(_if_finalist, policy, field_keys, make)
                    needs += field_keys.values()
                self._note(self.load(case, policy, "sweep", share, 0), make, *needs)

    def _note(self, key: str, make: Make, *needs: str) -> None:
        self._steps[key] = Step(key, make, tuple(needs))

    def _task(self, case: Case, policy: str, seed: int, target: float | None) -> Task:
        search = None
        if target is not None:
            search = Search(target=target, tolerance=self.tolerance, step=WIDE_STEP)
        return Task(
            selection=self.selection(case, seed),
            policy=policy,
            seed=seed,
            settings=case.fleet.settings,
            search=search,
        )

    def selection(self, case: Case, seed: int = 0) -> Selection:
        """The requests of a case."""
        return replace(case.workload.selection(self.folder, self.limit), seed=seed)


def finalists(results: Results, field_keys: Mapping[str, str]) -> list[str]:
    """The baselines of the highest capacities, the best first.

    Args:
        results: What is known.
        field_keys: The key of each baseline's search.
    """
    capacities = {
        policy: results[key].row.capacity_rps or 0.0
        for policy, key in field_keys.items()
        if key in results
    }
    return sorted(capacities, key=lambda policy: -capacities[policy])[:FINALISTS]


def _as_it_is(task: Task, _results: Results) -> Task:
    return task


def _near(task: Task, origin: str, step: float, share: float, results: Results) -> Task:
    """Search from a share of another capacity on; from the trace's rate where there is none."""
    row = results[origin].row
    if task.search is None or row.capacity_rps is None:
        return task
    search = replace(task.search, step=step)
    return replace(task, rate_scale=row.rate_scale * share, search=search)


def _at(task: Task, origins: Sequence[str], share: float, results: Results) -> Task | None:
    """Simulate at a share of a capacity, the median over its seeds; not where there is none."""
    rows = [results[key].row for key in origins if key in results]
    scales = [row.rate_scale for row in rows if row.capacity_rps is not None]
    if not scales:
        return None
    return replace(task, rate_scale=median(scales) * share)


def _if_finalist(
    policy: str, field_keys: Mapping[str, str], make: Make, results: Results
) -> Task | Finished | None:
    return make(results) if policy in finalists(results, field_keys) else None


def _unless_known(step: Step, store: Store, results: Results) -> Task | Finished | None:
    made = step.make(results)
    if not isinstance(made, Task):
        return made
    return store.look_up(step.key, made) or made
