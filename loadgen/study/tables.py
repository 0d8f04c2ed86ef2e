"""The tables of a study, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.replay.rows import NONE, duration, percent
from loadgen.study.cases import ABLATED, FIRST, LEFT_OUT, LOADED, ORACLE, OWN
from loadgen.study.steps import LOAD, STRICT_TARGET, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadgen.simulate.results import Row
    from loadgen.study.cases import Fleet
    from loadgen.study.figures import Figures, Spread
    from loadgen.study.steps import Case


def all_tables(figures: Figures) -> str:
    """Every table of which anything is known, each with a title."""
    parts = ["# Study\n", _about(figures)]
    parts += [
        f"## Capacity, {fleet.title}\n\n{capacities(figures, fleet)}"
        for fleet in figures.fleets
        if figures.cases(fleet)
    ]
    first = figures.fleets[0]
    cases = figures.cases(first)
    for title, table in (
        (f"Capacity at a target of {percent(STRICT_TARGET)}", stricts(figures, cases)),
        ("Latencies", loads(figures, cases)),
        ("What each part adds", ablation(figures, cases)),
    ):
        if table:
            parts.append(f"## {title}, {first.title}\n\n{table}")
    return "\n".join(parts)


def capacities(figures: Figures, fleet: Fleet) -> str:
    """Capacities on one fleet: of round_robin in requests per second, else ratios to it."""
    baselines = figures.study.baselines
    last = (ORACLE,) if figures.study.oracle else ()
    header = ["workload", f"{FIRST}, req/s", *baselines, f"**{OWN}**", "to the best other", *last]
    rows = []
    for case in figures.cases(fleet):
        best = figures.best_baseline(case)
        row = [case.workload.name, _spread(figures.capacity(case, FIRST))]
        for policy in baselines:
            text = _median(figures.ratio(case, policy))
            row.append(f"*{text}*" if policy == best else text)
        row += [f"**{_spread(figures.ratio(case, OWN))}**", _number(figures.to(case, best))]
        row += [_median(figures.ratio(case, policy)) for policy in last]
        rows.append(row)
    return markdown(header, rows)


def stricts(figures: Figures, cases: Sequence[Case]) -> str:
    """Capacities at the strict target."""
    policies = (*figures.study.baselines, OWN)
    rows = []
    for case in cases:
        first = figures.strict(case, FIRST)
        if first is None:
            continue
        found = [figures.strict(case, policy) for policy in policies]
        ratios = [None if each is None else each / first for each in found]
        rows.append([case.workload.name, _number(first), *map(_number, ratios)])
    return markdown(["workload", f"{FIRST}, req/s", *policies], rows) if rows else ""


_LOOKS: tuple[tuple[str, Callable[[Row], float | None], Callable[[float], str]], ...] = (
    ("within SLO", lambda row: row.goodput, percent),
    ("TTFT p50", lambda row: row.ttft_p50_s, duration),
    ("TTFT p99", lambda row: row.ttft_p99_s, duration),
    ("TPOT p99", lambda row: row.tpot_p99_s, duration),
    ("32k TTFT p99", lambda row: row.long_ttft_p99_s, duration),
    ("32k TTFT max", lambda row: row.long_ttft_max_s, duration),
    ("held", lambda row: row.held_share, percent),
)


def loads(figures: Figures, cases: Sequence[Case]) -> str:
    """Latencies at shares of capacities."""
    rows = []
    for case in cases:
        if case.workload.name not in LOADED:
            continue
        for of, share in ((FIRST, LOAD), (OWN, LOAD), (OWN, 1.0)):
            for policy in (FIRST, OWN):
                cells = []
                for _, value, show in _LOOKS:
                    found = figures.at(case, policy, of, share, value)
                    cells.append(NONE if found is None else show(found))
                if any(cell != NONE for cell in cells):
                    rows.append([case.workload.name, f"{share:.0%} of {of}'s", policy, *cells])
    header = ["workload", "rate", "policy", *(name for name, _, _ in _LOOKS)]
    return markdown(header, rows) if rows else ""


def ablation(figures: Figures, cases: Sequence[Case]) -> str:
    """Capacities without each part of the policy, as ratios to round_robin's."""
    shown = [case for case in cases if case.workload.name in ABLATED]
    rows = []
    for name, policy in (("nothing", OWN), *LEFT_OUT.items()):
        cells = [_median(figures.ratio(case, policy)) for case in shown]
        if any(cell != NONE for cell in cells):
            rows.append([name, *cells])
    header = ["left out", *(case.workload.name for case in shown)]
    return markdown(header, rows) if len(rows) > 1 else ""


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are set to the right."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _about(figures: Figures) -> str:
    study = figures.study
    seeds = "1 seed" if study.seeds == 1 else f"medians of {study.seeds} seeds"
    slo = figures.fleets[0].settings.slo
    return (
        f"Capacity is the highest rate at which {percent(TARGET)} of the requests meet the "
        f"objective ({slo}; for the 70B twice as much TTFT for each token): {seeds}, their least "
        f"and most in brackets, to {percent(study.tolerance)}. Capacities of others than {FIRST} "
        f"are ratios to its; the best of them is in italics. A > marks what is higher still: the "
        f"trace is too short to find out.\n"
    )


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _median(spread: Spread | None) -> str:
    return NONE if spread is None else f"{'>' if spread.beyond else ''}{spread.median:.2f}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    text = _median(spread)
    return text if spread.seeds == 1 else f"{text} ({spread.least:.2f}-{spread.most:.2f})"
