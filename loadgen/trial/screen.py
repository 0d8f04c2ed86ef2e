"""What is told while a trial runs; it goes to standard error, tables go to standard output."""

from __future__ import annotations

from contextlib import asynccontextmanager
from textwrap import fill
from time import monotonic
from typing import TYPE_CHECKING

from rich.text import Text

from loadgen.replay.progress import progress_line
from loadgen.replay.rows import percent
from loadgen.replay.run import Tally
from loadgen.trial.table import doubts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console

    from loadgen.trace.request import Trace
    from loadgen.trial.plan import Case, Plan
    from loadgen.trial.run import Outcome

_INDENT = " " * 6


class Screen:
    """Tells how a plan is getting on.

    Args:
        plan: The plan.
        console: Where to.
    """

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._begun = 0
        self._began_s = 0.0

    def opening(self) -> None:
        """What is about to happen, and how long it will take."""
        fleet, runs = self._plan.fleet, len(self._plan.runs)
        pace = "" if fleet.speed == 1 else f" at {fleet.speed:g} times their speed"
        self._tell(
            f"{runs} {'run' if runs == 1 else 'runs'}, each with {fleet.replicas} fresh "
            f"{fleet.profile} replicas{pace}; {_about(self._plan.expected_s)} in all"
        )

    @asynccontextmanager
    async def run(self, trace: Trace, case: Case) -> AsyncIterator[Tally]:
        """While entered, show the run whose counts are in the tally that it yields."""
        self._begun += 1
        self._began_s = monotonic()
        tally = Tally(planned=len(trace.requests))
        self._tell(f"[{self._begun}/{len(self._plan.runs)}] {trace.name}, {case.name}")
        async with progress_line(tally, self._console):
            yield tally

    def ended(self, outcome: Outcome) -> None:
        """What came of a run, and what casts doubt on it."""
        report = outcome.report
        self._tell(
            f"{percent(report.goodput.share)} within SLO, {report.requests.failed} of "
            f"{report.requests.sent} failed; took {monotonic() - self._began_s:.0f} s",
            _INDENT,
        )
        for doubt in doubts(outcome):
            self._tell(f"warning: {doubt}", _INDENT, "yellow")

    def _tell(self, text: str, indent: str = "", style: str = "") -> None:
        lines = fill(text, self._console.width, initial_indent=indent, subsequent_indent=indent)
        self._console.print(Text(lines, style))


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(round(seconds / 10), 1) * 10} s"
    return f"about {round(seconds / 60)} minutes"
