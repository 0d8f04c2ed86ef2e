"""One run of a trial: a fleet, a router with a policy, and a trace through both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadgen.replay.client import ServerError
from loadgen.replay.options import ReplayOptions
from loadgen.replay.run import Tally
from loadgen.replay.run import run as replay
from loadgen.trial.errors import TrialError
from loadgen.trial.fleet import SimulatedFleet
from loadgen.trial.lag import LagWatch
from loadgen.trial.processes import Processes
from loadgen.trial.router import Router

if TYPE_CHECKING:
    from loadgen.replay.report import Report
    from loadgen.trace.request import Trace
    from loadgen.trial.plan import Case, Kill, Plan

_FIRST_REQUEST_LOOK_S = 0.005


@dataclass(slots=True)
class Killed:
    """What became of the replica that was to be killed."""

    replica: str | None = None
    """Its name, once it was killed."""

    back: bool = False
    """Whether it listens again."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Outcome:
    """What one run yielded."""

    trace: Trace
    case: Case
    report: Report
    killed: Killed
    redirected: int
    """Tries that failed before anything was answered, and were repeated on another replica."""

    continued: int
    """Streams that broke in the midst, and went on elsewhere, unseen by their clients."""

    replica_lag_s: float
    """How far the replicas were behind their clocks; see :class:`loadgen.trial.lag.LagWatch`."""


async def run_case(plan: Plan, trace: Trace, case: Case, tally: Tally | None = None) -> Outcome:
    """Start a fleet and a router, replay ``trace`` through them, end them again.

    Args:
        plan: What holds for all runs.
        trace: What to send.
        case: The policy, and who is killed.
        tally: Where to count, for a display of progress.

    Raises:
        TrialError: A process cannot be started, or ended unasked.
    """
    tally = tally or Tally()
    speed = plan.fleet.speed
    async with Processes() as processes:
        fleet = SimulatedFleet(processes, plan.fleet)
        router = await processes.unless_one_ends(_start(processes, fleet, case.policy, speed))
        options = ReplayOptions(
            url=router.url,
            slo=plan.slo,
            timeout_s=plan.timeout_s,
            speed=speed,
            salt=plan.salt,
        )
        killed = Killed()
        killing = asyncio.ensure_future(_kill(fleet, case.kill, speed, tally, killed))
        lag = LagWatch(fleet.urls, speed)
        watching = asyncio.ensure_future(lag.run())
        try:
            report = await processes.unless_one_ends(replay(trace, options, tally=tally))
        except ServerError as error:
            raise TrialError(str(error)) from error
        finally:
            killing.cancel()
            watching.cancel()
            await asyncio.wait([killing, watching])
        if not killing.cancelled():
            killing.result()
        attempts = sum(replica.dispatched_total for replica in await router.fleet())
        continued = await router.continued()
    return Outcome(
        trace=trace,
        case=case,
        report=report,
        killed=killed,
        redirected=max(attempts - report.requests.sent - continued.requests, 0),
        continued=continued.streams,
        replica_lag_s=lag.typical_s,
    )


async def _start(processes: Processes, fleet: SimulatedFleet, policy: str, speed: float) -> Router:
    await fleet.start()
    return await Router.start(processes, policy, fleet.urls, speed)


async def _kill(
    fleet: SimulatedFleet, kill: Kill | None, speed: float, tally: Tally, killed: Killed
) -> None:
    """Do to the first replica what ``kill`` says, if anything."""
    if kill is None:
        return
    while True:
        await asyncio.sleep(_FIRST_REQUEST_LOOK_S)
        if tally.sent:  # the trace's clock starts with its first request
            break
    await asyncio.sleep(kill.after_s / speed)
    killed.replica = await fleet.kill(0)
    if kill.back_after_s is not None:
        await asyncio.sleep(kill.back_after_s / speed)
        await fleet.restart(0)
        killed.back = True
