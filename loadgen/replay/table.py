"""A report on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from loadgen.replay.rows import NONE, count_rows, duration, percent, time_rows, warnings

if TYPE_CHECKING:
    from rich.console import Console

    from loadgen.replay.report import Report


def print_report(report: Report, console: Console) -> None:
    """Print the figures, the replicas, the errors, and what casts doubt on them."""
    trace = report.trace
    console.print(
        f"[bold]{escape(trace.name)}[/] to {escape(report.url)} ({escape(report.model)}): "
        f"{trace.requests} requests in {trace.duration_s:.0f} s, {trace.rate_rps:.2f} per second",
        highlight=False,
    )
    for change in trace.changes:
        console.print(f"  {escape(change)}", highlight=False)
    figures = Table(show_header=False, box=None, pad_edge=False)
    for name, value in count_rows(report):
        label = f"{name} ({report.slo})" if name == "within SLO" else name
        figures.add_row(escape(label), escape(value))
    console.print(figures)
    times = Table("", box=None, pad_edge=False, header_style="bold")
    for heading in ("p50", "p90", "p99"):
        times.add_column(heading, justify="right")
    for row in time_rows(report):
        times.add_row(*row)
    console.print(times)
    if any(replica.name for replica in report.replicas):
        console.print(_replica_table(report))
    if report.errors:
        console.print(_error_table(report))
    for warning in warnings(report):
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def _replica_table(report: Report) -> Table:
    table = Table("replica", box=None, pad_edge=False, header_style="bold")
    for heading in ("requests", "share", "output tokens", "failed", "TTFT p50", "TTFT p99"):
        table.add_column(heading, justify="right")
    for replica in report.replicas:
        table.add_row(
            escape(replica.name or "(none named)"),
            str(replica.requests),
            percent(replica.share),
            str(replica.output_tokens),
            str(replica.failed),
            NONE if replica.ttft_p50_s is None else duration(replica.ttft_p50_s),
            NONE if replica.ttft_p99_s is None else duration(replica.ttft_p99_s),
        )
    return table


def _error_table(report: Report) -> Table:
    table = Table("error", "count", "first one", box=None, pad_edge=False, header_style="bold red")
    for error in report.errors:
        table.add_row(escape(error.kind), str(error.count), escape(error.example))
    return table
