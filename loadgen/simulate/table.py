"""Rows on the screen."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median_low
from typing import TYPE_CHECKING, TypeAlias

from rich.markup import escape
from rich.table import Table

from loadgen.replay.rows import NONE, duration, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from loadgen.simulate.results import Row

_Value: TypeAlias = Callable[["Row"], float | None]

_TIMES: tuple[tuple[str, _Value], ...] = (
    ("TTFT\np50", lambda row: row.ttft_p50_s),
    ("TTFT\np99", lambda row: row.ttft_p99_s),
    ("ITL\np99", lambda row: row.itl_p99_s),
    ("TPOT\np99", lambda row: row.tpot_p99_s),
    ("E2E\np50", lambda row: row.e2e_p50_s),
)


def print_rows(rows: Sequence[Row], slo: str, console: Console, *, searched: bool) -> None:
    """Print a table for each workload, with a line for each policy: medians over its seeds.

    Args:
        rows: What to print, at least one.
        slo: The objective, in words.
        console: Where to.
        searched: Whether capacities were searched. Where there is none, no rate meets the target.
    """
    held = any(row.held_share for row in rows)
    split = any(row.prefill_busy is not None for row in rows)
    for (workload, _), by_policy in _grouped(rows).items():
        console.print(_title(workload, by_policy, slo), highlight=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("policy", overflow="fold", min_width=16)
        rate = "capacity\nreq/s" if searched else "rate\nreq/s"
        headings = (
            rate,
            "within\nSLO",
            *(name for name, _ in _times(split=split)),
            "cached",
            *(("held",) if held else ()),
            *(("split", "busy\nP/D %") if split else ()),
            "failed",
        )
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for policy, group in by_policy.items():
            for each in [group] if searched else _by_rate(group):
                cells = _cells(each, searched=searched, held=held, split=split)
                table.add_row(escape(policy), *cells)
        console.print(table)


def print_best_fleet(rows: Sequence[Row], console: Console) -> None:
    """Tell for each workload and policy which of several fleets has the highest capacity, and which
    of its pools limits it."""
    for workload in dict.fromkeys(row.workload for row in rows):
        for policy in dict.fromkeys(row.policy for row in rows):
            fleets: dict[str, list[Row]] = {}
            for row in rows:
                if (row.workload, row.policy) == (workload, policy):
                    fleets.setdefault(row.fleet, []).append(row)
            best = max(fleets.values(), key=_capacity)
            text = f"{workload}, {policy}: most requests are served by {best[0].fleet},"
            text += f" {_capacity(best):.2f} a second"
            prefill, decode = best[0].prefill_busy, best[0].decode_busy
            if prefill is not None and decode is not None:
                pool = "prefill" if prefill > decode else "decode"
                text += f"; its {pool} replicas are the busier ones"
            console.print(text, highlight=False)


def _capacity(group: list[Row]) -> float:
    return median_low([row.capacity_rps or 0.0 for row in group])


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, list[Row]]]:
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row.workload, row.fleet), {}).setdefault(row.policy, []).append(row)
    return groups


def _by_rate(group: list[Row]) -> list[list[Row]]:
    rates: dict[float, list[Row]] = {}
    for row in group:
        rates.setdefault(row.rate_scale, []).append(row)
    return list(rates.values())


def _title(workload: str, by_policy: dict[str, list[Row]], slo: str) -> str:
    group = next(iter(by_policy.values()))
    count = len({row.seed for row in group})
    seeds = "" if count == 1 else f", medians of {count} seeds"
    about = f"{group[0].requests} requests on {group[0].fleet}{seeds}; {slo}"
    return f"[bold]{escape(workload)}[/]: {escape(about)}"


def _cells(group: list[Row], *, searched: bool, held: bool, split: bool) -> list[str]:
    if searched:
        beyond = ">" if any(row.capacity_beyond for row in group) else ""
        cells = [beyond + _median(group, lambda row: row.capacity_rps or 0.0, _rate)]
    else:
        cells = [_median(group, lambda row: row.rate_rps, _rate)]
    cells.append(_median(group, lambda row: row.goodput, percent))
    cells += [_median(group, value_of, duration) for _, value_of in _times(split=split)]
    cells.append(_median(group, lambda row: row.prefix_hit_share, percent))
    if held:
        cells.append(_median(group, lambda row: row.held_share, percent))
    if split:
        cells.append(_median(group, lambda row: row.split_share, percent))
        pools = (lambda row: row.prefill_busy, lambda row: row.decode_busy)
        cells.append("/".join(_median(group, pool, _whole_percent) for pool in pools))
    cells.append(_median(group, lambda row: row.failed, _count))
    return cells


def _times(*, split: bool) -> tuple[tuple[str, _Value], ...]:
    """What there is room for."""
    return _TIMES[1:-1] if split else _TIMES


def _rate(value: float) -> str:
    return f"{value:.2f}"


def _whole_percent(value: float) -> str:
    return f"{100 * value:.0f}"


def _count(value: float) -> str:
    return f"{value:.0f}"


def _median(group: list[Row], value_of: _Value, show: Callable[[float], str]) -> str:
    values = [value for row in group if (value := value_of(row)) is not None]
    return show(median_low(values)) if values else NONE
