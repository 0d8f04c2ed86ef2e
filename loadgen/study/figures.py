"""Reads the results of a study."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from loadgen.study.cases import FIRST, ORACLE, OWN, SWEPT
from loadgen.study.steps import finalists

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadgen.simulate.results import Row
    from loadgen.simulate.task import Finished
    from loadgen.simulate.workers import Results
    from loadgen.study.cases import Fleet
    from loadgen.study.steps import Case, Study


class Spread(NamedTuple):
    """A figure over the seeds."""

    median: float
    least: float
    most: float
    seeds: int
    beyond: bool = False
    """Whether it is higher still: a trace is too short to find out."""


class Figures:
    """The figures of a study.

    Args:
        study: What was simulated.
        results: What came of it, or of a part of it.
    """

    def __init__(self, study: Study, results: Results) -> None:
        self.study = study
        self._results = results

    @property
    def fleets(self) -> list[Fleet]:
        """The fleets, in their order."""
        return list({case.fleet.name: case.fleet for case in self.study.cases}.values())

    def cases(self, fleet: Fleet) -> list[Case]:
        """The cases on a fleet of which something is known."""
        of_fleet = [case for case in self.study.cases if case.fleet.name == fleet.name]
        return [case for case in of_fleet if self.capacity(case, FIRST) is not None]

    def capacity(self, case: Case, policy: str) -> Spread | None:
        """Requests per second; None where no rate meets the target, or nothing is known."""
        return self._spread(case, policy, lambda row, _: row.capacity_rps)

    def ratio(self, case: Case, policy: str) -> Spread | None:
        """Capacity as a ratio to round_robin's under the same seed."""

        def to_first(row: Row, seed: int) -> float | None:
            first = self._row(self.study.capacity(case, FIRST, seed))
            if row.capacity_rps is None or first is None or first.capacity_rps is None:
                return None
            return row.capacity_rps / first.capacity_rps

        return self._spread(case, policy, to_first)

    def best_baseline(self, case: Case) -> str | None:
        """The baseline of the highest capacity, round_robin among them."""
        names = (FIRST, *self.study.baselines)
        found = {name: self.capacity(case, name) for name in names}
        known = {name: spread.median for name, spread in found.items() if spread is not None}
        return max(known, key=known.__getitem__) if known else None

    def to(self, case: Case, other: str | None) -> float | None:
        """Capacity of the measured policy as a ratio to that of another, medians both."""
        own = self.capacity(case, OWN)
        theirs = None if other is None else self.capacity(case, other)
        return None if own is None or theirs is None else own.median / theirs.median

    def to_oracle(self, case: Case) -> float | None:
        """The same to the oracle's."""
        return self.to(case, ORACLE)

    def strict(self, case: Case, policy: str) -> float | None:
        """Capacity at the strict target, one seed."""
        row = self._row(self.study.strict(case, policy))
        return None if row is None else row.capacity_rps

    def at(
        self, case: Case, policy: str, of: str, share: float, value: Callable[[Row], float | None]
    ) -> float | None:
        """A figure at a share of the capacity under ``of``: the median over the seeds."""
        keys = [self.study.load(case, policy, of, share, n) for n in range(self.study.seeds)]
        rows = [row for key in keys if (row := self._row(key)) is not None]
        values = [found for row in rows if (found := value(row)) is not None]
        return median(values) if values else None

    def sweep(self, case: Case) -> list[Finished]:
        """Simulations at several rates: round_robin, the best baselines, the measured policy."""
        field_keys = {p: self.study.capacity(case, p, 0) for p in self.study.baselines}
        policies = (FIRST, *finalists(self._results, field_keys), OWN)
        keys = [self.study.load(case, p, "sweep", share, 0) for p in policies for share in SWEPT]
        return [self._results[key] for key in keys if key in self._results]

    def _spread(
        self, case: Case, policy: str, value: Callable[[Row, int], float | None]
    ) -> Spread | None:
        values = []
        beyond = False
        for seed in range(self.study.seeds):
            row = self._row(self.study.capacity(case, policy, seed))
            found = None if row is None else value(row, seed)
            if found is not None:
                values.append(found)
                beyond = beyond or (row is not None and row.capacity_beyond)
        if not values:
            return None
        return Spread(median(values), min(values), max(values), len(values), beyond)

    def _row(self, key: str) -> Row | None:
        finished = self._results.get(key)
        return None if finished is None else finished.row
