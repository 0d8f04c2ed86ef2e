"""Several reports side by side, on the screen or as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from loadgen.replay.rows import count_rows, time_rows, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadgen.replay.report import Report


def comparison_rows(reports: Mapping[str, Report]) -> list[tuple[str, ...]]:
    """A row for each figure, a column for each report; the first row holds the names."""
    columns = [_column(report) for report in reports.values()]
    names = columns[0].keys() if columns else ()
    return [("", *reports), *((name, *(column[name] for column in columns)) for name in names)]


def _column(report: Report) -> dict[str, str]:
    times = {
        f"{name} {quantile}": value
        for name, *values in time_rows(report)
        for quantile, value in zip(("p50", "p90", "p99"), values, strict=True)
    }
    return dict(count_rows(report)) | times


def as_table(reports: Mapping[str, Report]) -> Table:
    """The comparison for a terminal."""
    heading, *rows = comparison_rows(reports)
    table = Table(*map(escape, heading), pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def as_markdown(reports: Mapping[str, Report]) -> str:
    """The comparison as a Markdown table."""
    heading, *rows = comparison_rows(reports)
    lines = [heading, ("---",) * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def doubts(reports: Mapping[str, Report]) -> list[str]:
    """Why the reports cannot be compared, or one of them not be believed."""
    found = [
        f"the reports differ in {what}: {', '.join(sorted(map(str, values)))}"
        for what, value_of in _COMPARABLE.items()
        if len(values := {value_of(report) for report in reports.values()}) > 1
    ]
    return found + [
        f"{name}: {warning}" for name, report in reports.items() for warning in warnings(report)
    ]


_COMPARABLE: dict[str, Callable[[Report], object]] = {
    "trace": lambda report: report.trace.name,
    "what was done to it": lambda report: "; ".join(report.trace.changes) or "nothing",
    "requests": lambda report: report.trace.requests,
    "objective": lambda report: report.slo,
    "endpoint": lambda report: report.endpoint,
    "speed": lambda report: report.speed,
}
