"""Outcomes of runs that were never made."""

from __future__ import annotations

from datetime import UTC, datetime

from loadgen.replay.figures import Measured, report_of
from loadgen.replay.options import ReplayOptions
from loadgen.replay.outcome import Failure, Outcome
from loadgen.trace.request import Trace, TraceRequest
from loadgen.trial.plan import Case
from loadgen.trial.run import Killed
from loadgen.trial.run import Outcome as TrialOutcome

OPTIONS = ReplayOptions(url="http://127.0.0.1:1")


def trace_of(name, count=4):
    requests = [
        TraceRequest(arrival_s=float(number), prompt_tokens=10, output_tokens=3)
        for number in range(count)
    ]
    return Trace.of(name, requests, ["made up"])


def outcome_of(case=None, trace=None, *, failed=0, late_s=0.0, lag_s=0.0):
    """Every request takes 250 ms to its first token and 50 ms for each further one."""
    trace = trace or trace_of("t")
    outcomes = []
    for number, request in enumerate(trace.requests):
        sent_s = request.arrival_s + late_s
        one = Outcome(number, 10, 3, request.arrival_s, sent_s)
        one.ended_s = sent_s + 0.35
        one.first_token_s = sent_s + 0.25
        one.generated_tokens = 3
        if number < failed:
            one.fail(Failure.ERROR_EVENT, "broke")
        outcomes.append(one)
    measured = Measured(
        started=datetime.now(UTC),
        model="m",
        interrupted=False,
        outcomes=outcomes,
        cancelled=0,
        gaps_s=[0.01],
        loop_lags_s=[0.0],
    )
    return TrialOutcome(
        trace=trace,
        case=case or Case("p"),
        report=report_of(trace, OPTIONS, measured),
        killed=Killed(),
        redirected=0,
        continued=0,
        replica_lag_s=lag_s,
    )
