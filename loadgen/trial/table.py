"""The outcomes of a trial side by side: a row for each run, on the screen or as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from loadgen.replay.rows import NONE, duration, percent, warnings
from loadgen.trial.lag import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.quantiles import Distribution
    from loadgen.trial.run import Outcome

HEADINGS = (
    "policy",
    "within SLO",
    "TTFT p50",
    "TTFT p99",
    "TPOT p50",
    "TPOT p99",
    "E2E p99",
    "failed",
)


def row(outcome: Outcome) -> tuple[str, ...]:
    """The figures of one run, in the order of :data:`HEADINGS`."""
    report = outcome.report
    return (
        outcome.case.name,
        percent(report.goodput.share),
        _quantile(report.ttft_s, "p50"),
        _quantile(report.ttft_s, "p99"),
        _quantile(report.tpot_s, "p50"),
        _quantile(report.tpot_s, "p99"),
        _quantile(report.e2e_s, "p99"),
        str(report.requests.failed),
    )


def title(outcomes: Sequence[Outcome]) -> str:
    """What was sent to all of them."""
    report = outcomes[0].report
    return f"{report.trace.name}: {_amount(outcomes)}; SLO {report.slo}"


def as_table(outcomes: Sequence[Outcome]) -> Table:
    """For a terminal; all of one trace."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(HEADINGS):
        words = heading.replace(" ", "\n", 1)
        if number:
            table.add_column(words, justify="right", no_wrap=True)
        else:  # long names break, so that narrow screens show all figures
            table.add_column(words, overflow="fold")
    for outcome in outcomes:
        table.add_row(*map(escape, row(outcome)))
    return table


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """For a document; all of one trace."""
    report = outcomes[0].report
    amount = "; ".join((_amount(outcomes), *report.trace.changes))
    rules = ("---", *["---:"] * (len(HEADINGS) - 1))
    lines = (HEADINGS, rules, *map(row, outcomes))
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"**{report.trace.name}** ({amount}), SLO `{report.slo}`:\n\n{rows}"


def doubts(outcome: Outcome) -> list[str]:
    """What a reader must know before believing the figures of a run."""
    found = warnings(outcome.report)
    if outcome.case.kill is not None and outcome.killed.replica is None:
        found.append("no replica was killed: the last answer had ended before it was time")
    if outcome.replica_lag_s > LIMIT_S:
        found.append(
            f"the simulated replicas were {duration(outcome.replica_lag_s)} behind their own "
            "clocks: too little CPU for this speed"
        )
    return found


def _quantile(distribution: Distribution | None, name: str) -> str:
    return NONE if distribution is None else duration(getattr(distribution, name))


def _amount(outcomes: Sequence[Outcome]) -> str:
    trace = outcomes[0].report.trace
    return f"{trace.requests} requests in {trace.duration_s:.0f} s, {trace.rate_rps:.1f} per second"
