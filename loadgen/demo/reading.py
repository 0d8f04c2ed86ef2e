"""The demo's comparison in plain words, made of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.replay.outcome import Failure
from loadgen.replay.rows import duration, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.trial.run import Outcome

_BROKEN_OFF = frozenset({Failure.TRUNCATED.value, Failure.ERROR_EVENT.value})
"""Ends of answers that had begun."""


def reading(outcomes: Sequence[Outcome]) -> list[str]:
    """How to read the table of ``outcomes``, a paragraph for each thing to look at."""
    undisturbed = [outcome for outcome in outcomes if outcome.case.kill is None]
    paragraphs = [_within_slo(undisturbed), _first_tokens(undisturbed)]
    paragraphs += [_kill(outcome) for outcome in outcomes if outcome.case.kill is not None]
    return [*paragraphs, _dropped(outcomes), _validity(outcomes)]


def broken_off(outcome: Outcome) -> int:
    """How many answers broke off after they had begun."""
    return sum(error.count for error in outcome.report.errors if error.kind in _BROKEN_OFF)


def _within_slo(outcomes: Sequence[Outcome]) -> str:
    best = max(outcomes, key=lambda outcome: outcome.report.goodput.share)
    return (
        "Within SLO: requests whose first token came in time (long prompts are given more) and "
        f"whose further tokens came fast enough. {best.case.name} is best here, with "
        f"{percent(best.report.goodput.share)}."
    )


def _first_tokens(outcomes: Sequence[Outcome]) -> str:
    waits = ", ".join(
        f"{outcome.case.name} {_time(outcome.report.ttft_s.p90)}"
        for outcome in outcomes
        if outcome.report.ttft_s is not None
    )
    return (
        "TTFT: what a request waits for its first token. A prompt of 100,000 tokens keeps a "
        "replica busy for ten seconds; round_robin sends the next ones there all the same when it "
        f"is its turn, the others look first. p90: {waits}."
    )


def _kill(outcome: Outcome) -> str:
    kill, killed = outcome.case.kill, outcome.killed
    if kill is None or killed.replica is None:
        return f"{outcome.case.name}: the trace had ended before the replica was to be killed."
    told = (
        f"{outcome.case.name}: {killed.replica} got SIGKILL {kill.after_s:g} s after the first "
        f"request. {_streams(outcome.continued)} that it was in the midst of went on at another "
        "replica, and the clients read each as one answer."
    )
    broken = broken_off(outcome)
    if broken:
        told += f" {_streams(broken)} could not go on, and ended with an error event."
    if outcome.redirected:
        told += f" {_streams(outcome.redirected)} that had not begun went to another replica."
    if killed.back:
        told += " It came back with a cold cache."
    return told


def _dropped(outcomes: Sequence[Outcome]) -> str:
    counts = ", ".join(f"{outcome.case.name} {broken_off(outcome)}" for outcome in outcomes)
    return f"Streams dropped: {counts}."


def _validity(outcomes: Sequence[Outcome]) -> str:
    clients = [outcome.report.client for outcome in outcomes]
    measured = [d for client in clients for d in (client.send_lateness_s, client.loop_lag_s)]
    late_s = max((distribution.p99 for distribution in measured if distribution), default=0.0)
    verdict = (
        "too late: this machine was too busy, and the figures tell of it and not of the router"
        if any(client.too_slow for client in clients)
        else "in time, so the figures are not of its making"
    )
    return f"The load client was {_time(late_s)} late at most (p99): {verdict}."


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _time(seconds: float) -> str:
    """A time that no line break tears from its unit."""
    return duration(seconds).replace(" ", "\N{NO-BREAK SPACE}")
