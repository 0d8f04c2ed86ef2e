"""The simulations of one command: each workload under each policy and each seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from loadgen.simulate.capacity import NARROW_STEP
from loadgen.simulate.task import Task
from loadgen.simulate.workers import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.simulate.settings import Settings
    from loadgen.simulate.task import Search
    from loadgen.simulate.workers import Results
    from loadgen.trace.selection import Selection


@dataclass(slots=True, frozen=True, kw_only=True)
class Comparison:
    """What is compared on what."""

    selections: Sequence[Selection]
    policies: Sequence[str]
    seeds: int
    fleets: Sequence[Settings]
    rates: Sequence[float] = (1.0,)
    """Factors on the rate of each trace; a search begins at the first."""

    search: Search | None = None
    curves: bool = False

    def steps(self) -> list[Step]:
        """All simulations, in the order of their rows."""
        return [
            self._step(selection, settings, policy, rate_scale, seed)
            for selection in self.selections
            for settings in self.fleets
            for policy in self.policies
            for rate_scale in self.rates
            for seed in range(self.seeds)
        ]

    def _step(
        self,
        selection: Selection,
        settings: Settings,
        policy: str,
        rate_scale: float,
        seed: int,
    ) -> Step:
        task = Task(
            selection=replace(selection, seed=seed),
            policy=policy,
            seed=seed,
            settings=settings,
            rate_scale=rate_scale,
            search=self.search,
            curves=self.curves,
        )
        name = f"{selection.spec} {settings.fleet} {policy} {rate_scale:g}"
        if seed and self.search is not None:
            first = f"{name} 0"
            return Step(f"{name} {seed}", partial(searched_near, task, first), (first,))
        return Step(f"{name} {seed}", lambda _: task)


def searched_near(task: Task, first: str, results: Results) -> Task:
    """``task``, searched from where the capacity was found under another seed."""
    row = results[first].row
    if task.search is None or row.capacity_rps is None:
        return task
    search = replace(task.search, step=NARROW_STEP)
    return replace(task, rate_scale=row.rate_scale, search=search)
