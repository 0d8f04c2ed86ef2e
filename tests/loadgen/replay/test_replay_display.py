"""What a replay shows on the screen."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from loadgen.replay.figures import Measured, report_of
from loadgen.replay.options import ReplayOptions
from loadgen.replay.outcome import Failure, Outcome
from loadgen.replay.progress import progress_line
from loadgen.replay.rows import duration
from loadgen.replay.run import Tally
from loadgen.replay.table import print_report
from loadgen.trace.request import Trace, TraceRequest

DEADLINE_S = 20


class Screen(io.StringIO):
    """A terminal that can be waited on."""

    def __init__(self):
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text):
        self.written.set()
        return super().write(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001, "0.1 ms"),
        (0.0612, "61.2 ms"),
        (0.09949, "99.5 ms"),
        (0.0996, "100 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (12.345, "12.35 s"),
        (123.4, "123 s"),
    ],
)
def test_times_have_three_figures_and_the_unit_that_suits(seconds, text):
    assert duration(seconds) == text


async def test_the_progress_line_counts():
    screen = Screen()
    tally = Tally(planned=9, sent=7, succeeded=4, failed=1)
    console = Console(file=screen, force_terminal=True, width=100)
    async with asyncio.timeout(DEADLINE_S), progress_line(tally, console):
        while "7/9" not in screen.getvalue():
            screen.written.clear()
            await screen.written.wait()
    assert "2 open, 4 done, 1 failed" in screen.getvalue()


async def test_there_is_no_progress_line_where_there_is_no_terminal():
    screen = Screen()
    async with progress_line(Tally(planned=9), Console(file=screen)):
        await asyncio.sleep(0)
    assert screen.getvalue() == ""


def screen_of(outcome):
    trace = Trace.of("t", [TraceRequest(arrival_s=0, prompt_tokens=9, output_tokens=9)], ["[cut]"])
    measured = Measured(
        started=datetime(2026, 1, 1, tzinfo=UTC),
        model="m",
        interrupted=False,
        outcomes=[outcome],
        cancelled=0,
        gaps_s=[],
        loop_lags_s=[0.5],
    )
    screen = io.StringIO()
    report = report_of(trace, ReplayOptions(url="http://h"), measured)
    print_report(report, Console(file=screen, width=120))
    return screen.getvalue()


def test_errors_and_doubts_are_printed_as_they_are():
    failed = Outcome(
        number=0,
        prompt_tokens=9,
        output_tokens=9,
        scheduled_s=0,
        sent_s=0,
        ended_s=1,
        replica="h:1",
        failure=Failure.ERROR_EVENT,
        detail="[red] herring",
    )
    screen = screen_of(failed)
    assert "[cut]" in screen
    assert "error_event  1      [red] herring" in screen
    assert "warning: the client was too slow (p99 of its lateness above 100 ms)" in screen


def test_a_tokenizer_that_counts_otherwise_is_told_of():
    outcome = Outcome(
        number=0,
        prompt_tokens=100,
        output_tokens=10,
        scheduled_s=0,
        sent_s=0,
        ended_s=1,
        first_token_s=0.5,
        generated_tokens=4,
        reported_prompt_tokens=150,
    )
    screen = screen_of(outcome)
    assert "the server counts 1.50 x the prompt tokens wanted" in screen
    assert "the server generated 0.40 x the output tokens wanted" in screen
