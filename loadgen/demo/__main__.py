"""The demo as a program: ``python -m loadgen.demo``."""

from __future__ import annotations

import sys
from textwrap import fill
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Console

from loadgen.demo.reading import reading
from loadgen.trace.selection import Selection
from loadgen.trial.errors import TrialError
from loadgen.trial.fleet import FleetSettings
from loadgen.trial.plan import Case, Kill, Plan
from loadgen.trial.screen import Screen
from loadgen.trial.table import as_table, title
from loadgen.trial.trial import perform
from policies.slo import parse_slo

if TYPE_CHECKING:
    from loadgen.trial.run import Outcome

SELECTION: Final = Selection(
    spec="mooncake-conversation", jitter=True, start_s=90.0, duration_s=32.0
)
"""A busy half minute of a real trace with short and very long prompts."""

CASES: Final = (
    Case("round_robin"),
    Case("least_requests"),
    Case("least_estimated_completion"),
    Case("least_estimated_completion", Kill(after_s=15.0, back_after_s=5.0)),
)

FLEET: Final = FleetSettings(replicas=4, profile="8b-h100", speed=4.0)
"""At this speed a run takes some 12 s, and two slow cores are not half busy."""

SLO: Final = "ttft=2s+0.25ms@4096,tpot=60ms"

EXIT_BROKEN = 1
EXIT_BY_SIGNAL = 128


def demo(plan: Plan, console: Console) -> int:
    """Run ``plan``, then print the comparison and how to read it.

    Returns:
        The exit status: 0; 1 when a process failed; 128 + N when ended by signal N.
    """
    began_s = monotonic()
    prompts = plan.traces[0].requests
    shortest = min(request.prompt_tokens for request in prompts)
    longest = max(request.prompt_tokens for request in prompts)
    _tell(
        console,
        f"{plan.fleet.replicas} simulated replicas, `pointsman serve` before them, and "
        f"{len(prompts)} requests of the trace {plan.traces[0].name}, with prompts of "
        f"{shortest:,} to {longest:,} tokens.",
    )
    outcomes: list[Outcome] = []
    try:
        signal = perform(plan, Screen(plan, console), outcomes.append)
    except TrialError as error:
        console.print(f"the demo broke: {error}", highlight=False, markup=False)
        return EXIT_BROKEN
    if signal is not None:
        console.print(f"ended by {signal.name}; every process is gone", highlight=False)
        return EXIT_BY_SIGNAL + signal
    console.print()
    _tell(console, title(outcomes))
    console.print(as_table(outcomes))
    console.print("\nHow to read it", style="bold")
    for paragraph in reading(outcomes):
        _tell(console, f"- {paragraph}", "  ")
    console.print(f"\n{monotonic() - began_s:.0f} s in all; every process is gone", highlight=False)
    return 0


def _tell(console: Console, text: str, indent: str = "") -> None:
    lines = fill(text, console.width, subsequent_indent=indent, break_on_hyphens=False)
    console.print(lines, highlight=False, markup=False)


def main() -> int:
    """Run the demo on this terminal; the result is the exit status."""
    plan = Plan(traces=(SELECTION.open(),), cases=CASES, fleet=FLEET, slo=parse_slo(SLO))
    return demo(plan, Console())


if __name__ == "__main__":
    sys.exit(main())
