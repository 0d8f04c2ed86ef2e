"""A whole trial: every run of a plan, one after the other."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import uvloop

from loadgen.trial.ending import until_signalled
from loadgen.trial.run import run_case

if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Signals

    from loadgen.trial.plan import Plan
    from loadgen.trial.run import Outcome
    from loadgen.trial.screen import Screen


def perform(plan: Plan, screen: Screen, ended: Callable[[Outcome], None]) -> Signals | None:
    """Do what ``plan`` says, in an event loop of its own; every process is gone when it returns.

    Args:
        plan: What to run.
        screen: Where progress is shown.
        ended: Gets each outcome as it comes.

    Returns:
        The signal that ended it before its time, if one did.

    Raises:
        TrialError: A process cannot be started, or ended unasked.
    """
    _allow_many_connections()
    return uvloop.run(until_signalled(_perform(plan, screen, ended)))


async def _perform(plan: Plan, screen: Screen, ended: Callable[[Outcome], None]) -> None:
    screen.opening()
    for trace, case in plan.runs:
        async with screen.run(trace, case) as tally:
            outcome = await run_case(plan, trace, case, tally)
        screen.ended(outcome)
        ended(outcome)


def _allow_many_connections() -> None:
    """For the client, which holds as many as the fleet is behind, and for all its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
