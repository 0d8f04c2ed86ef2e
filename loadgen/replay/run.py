"""Running a replay: each request at its time, whatever became of those before it."""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from loadgen.replay.bodies import Bodies
from loadgen.replay.client import Client, first_model, open_session
from loadgen.replay.figures import Measured, report_of
from loadgen.replay.heartbeat import Heartbeat
from loadgen.replay.outcome import Outcome
from loadgen.replay.prompts import PromptWriter

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import aiohttp

    from loadgen.replay.options import ReplayOptions
    from loadgen.replay.report import Report
    from loadgen.trace.request import Trace

_LEISURE_S = 0.02
"""With more time than this before the next request, bodies are made ahead."""

_CLOSE_ENOUGH_S = 0.0005
"""uvloop's timers count whole milliseconds: to wait for less would be to spin."""


@dataclass(slots=True)
class Tally:
    """Counts of a run, up to date at any time."""

    planned: int = 0
    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    output_tokens: int = 0
    """Of requests that ended."""

    @property
    def open(self) -> int:
        """Requests on their way."""
        return self.sent - self.succeeded - self.failed


async def run(
    trace: Trace,
    options: ReplayOptions,
    *,
    stop: asyncio.Event | None = None,
    tally: Tally | None = None,
) -> Report:
    """Replay ``trace`` and report what came back.

    Open loop: requests are sent at the trace's times, even when the server falls behind.

    Args:
        trace: The requests.
        options: Where to send them and how.
        stop: When set, the run ends at once: requests on their way are cancelled, and the report
            says that it is partial.
        tally: Where to count, for a display of progress.

    Raises:
        ServerError: No model was named and the server cannot be asked for one.
    """
    tally = tally or Tally()
    tally.planned = len(trace.requests)
    stop = stop or asyncio.Event()
    async with open_session(options) as session:
        model = options.model or await first_model(session, options.url)
        replay = _Replay(trace, options, model, tally, session)
        async with Heartbeat() as heartbeat:
            interrupted = await _until(stop, replay.play())
    return report_of(
        trace,
        options,
        Measured(
            started=replay.started,
            model=model,
            interrupted=interrupted,
            outcomes=replay.outcomes,
            cancelled=tally.open,
            gaps_s=replay.gaps_s,
            loop_lags_s=heartbeat.lags_s,
        ),
    )


class _Replay:
    """One run in progress."""

    def __init__(
        self,
        trace: Trace,
        options: ReplayOptions,
        model: str,
        tally: Tally,
        session: aiohttp.ClientSession,
    ) -> None:
        self._trace = trace
        self._speed = options.speed
        self._tally = tally
        self._bodies = Bodies(trace, PromptWriter(options.salt), model, options.endpoint)
        self.outcomes: list[Outcome] = []
        self.gaps_s = array("d")
        while self._trace.requests and self._bodies.prepare():
            pass
        self.started = datetime.now(UTC)
        self._started_s = monotonic()
        self._client = Client(session, options, self._started_s, self.gaps_s)

    async def play(self) -> None:
        """Send every request at its time and wait for the last answer."""
        async with asyncio.TaskGroup() as requests:
            for number, request in enumerate(self._trace.requests):
                due_s = request.arrival_s / self._speed
                await self._wait_until(due_s)
                outcome = Outcome(
                    number=number,
                    prompt_tokens=request.prompt_tokens,
                    output_tokens=max(request.output_tokens, 1),
                    scheduled_s=due_s,
                    sent_s=due_s,
                )
                requests.create_task(self._send(self._bodies.take(), outcome))
                self._tally.sent += 1

    async def _wait_until(self, due_s: float) -> None:
        while (wait_s := self._started_s + due_s - monotonic()) > _CLOSE_ENOUGH_S:
            if wait_s > _LEISURE_S and self._bodies.prepare():
                await asyncio.sleep(0)  # let answers be read between two bodies
            else:
                await asyncio.sleep(wait_s)

    async def _send(self, body: bytes, outcome: Outcome) -> None:
        await self._client.send(body, outcome)
        self.outcomes.append(outcome)
        if outcome.failure is None:
            self._tally.succeeded += 1
        else:
            self._tally.failed += 1
        self._tally.output_tokens += outcome.generated_tokens


async def _until(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do ``work``, but no longer than until ``stop`` is set; whether it was cut short."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        interrupted = not working.done()
        if not interrupted:
            working.result()
        return interrupted
    finally:
        working.cancel()
        stopping.cancel()
        await asyncio.wait({working, stopping})
