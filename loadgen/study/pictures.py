"""The pictures of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from loadgen.simulate.drawing import COLOURS, GREY, draw, finish, spread_apart
from loadgen.study.cases import FIRST, ORACLE, OWN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadgen.study.cases import Fleet
    from loadgen.study.figures import Figures
    from loadgen.study.steps import Case

KINDS = ("png", "svg")


def draw_all(figures: Figures, folder: Path) -> list[Path]:
    """Draw whatever there is to draw.

    Returns:
        The files.

    Raises:
        OSError: One cannot be written.
    """
    files = []
    for fleet in figures.fleets:
        cases = figures.cases(fleet)
        if cases:
            for kind in KINDS:
                files.append(folder / f"capacity-{fleet.name}.{kind}")
                draw_capacities(files[-1], figures, fleet, cases)
    for case in figures.study.cases:
        finished = figures.sweep(case)
        if finished:
            for kind in KINDS:
                files.append(folder / f"sweep-{case.fleet.name}-{case.workload.name}.{kind}")
                draw(files[-1], finished, str(case.fleet.settings.slo))
    return files


def draw_capacities(path: Path, figures: Figures, fleet: Fleet, cases: Sequence[Case]) -> None:
    """A row of dots for each workload: capacities as ratios to round_robin's."""
    figure = Figure(figsize=(9, 1.2 + 0.72 * len(cases)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"Capacity, {fleet.title}", loc="left", fontsize=10, color=GREY)
    for place, case in enumerate(reversed(cases)):
        _draw_case(axes, figures, case, place)
    axes.set_yticks(range(len(cases)), [case.workload.name for case in reversed(cases)])
    axes.set_ylim(-0.6, len(cases) - 0.35)
    axes.axvline(1, color="#bbbbbb", lw=1)
    finish(axes, f"capacity as a ratio to {FIRST}'s", "")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color="#eeeeee")
    figure.savefig(path, dpi=150)


def _draw_case(axes: Axes, figures: Figures, case: Case, place: int) -> None:
    others = {
        policy: spread.median
        for policy in figures.study.baselines
        if (spread := figures.ratio(case, policy)) is not None
    }
    axes.plot(list(others.values()), [place] * len(others), "o", color="#aaaaaa", ms=5)
    labels: list[tuple[float, str, str]] = []
    best = figures.best_baseline(case)
    if best in others:
        axes.plot(others[best], place, "o", color=COLOURS[1], ms=6)
        labels.append((others[best], best, COLOURS[1]))
    for policy, colour, marker in ((ORACLE, "black", "|"), (OWN, COLOURS[0], "o")):
        spread = figures.ratio(case, policy)
        if spread is None:
            continue
        axes.plot([spread.least, spread.most], [place, place], color=colour, lw=1.2)
        axes.plot(spread.median, place, marker, color=colour, ms=8)
        name = "this" if policy == OWN else policy
        labels.append((spread.median, f"{name} {spread.median:.2f}", colour))
    low, high = axes.get_xlim()
    places = spread_apart([x for x, _, _ in labels], 0.14 * (high - low))
    for (_, text, colour), x in zip(labels, places, strict=True):
        axes.annotate(
            text,
            (x, place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
        )
