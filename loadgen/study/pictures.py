"""The pictures of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from loadgen.simulate.drawing import COLOURS, GREY, draw, finish
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
    figure = Figure(figsize=(9, 1.4 + 0.72 * len(cases)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(fleet.title, loc="left", fontsize=10, color=GREY)
    for place, case in enumerate(reversed(cases)):
        _draw_case(axes, figures, case, place, first=place == len(cases) - 1)
    axes.set_yticks(range(len(cases)), [case.workload.name for case in reversed(cases)])
    axes.set_ylim(-0.6, len(cases) - 0.3)
    axes.set_xlim(left=0)
    axes.axvline(1, color="#bbbbbb", lw=1)
    finish(axes, f"capacity as a ratio to {FIRST}'s; grey: other policies", "")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color="#eeeeee")
    figure.savefig(path, dpi=150)


def _draw_case(axes: Axes, figures: Figures, case: Case, place: int, *, first: bool) -> None:
    others = {
        policy: spread.median
        for policy in figures.study.baselines
        if (spread := figures.ratio(case, policy)) is not None
    }
    axes.plot(list(others.values()), [place] * len(others), "o", color="#bbbbbb", ms=5)
    best = figures.best_baseline(case)
    if best in others:
        axes.plot(others[best], place, "o", color=COLOURS[1], ms=6)
        _label(axes, (others[best], place), best, COLOURS[1], below=True)
    oracle, own = figures.ratio(case, ORACLE), figures.ratio(case, OWN)
    if oracle is not None:
        axes.plot(oracle.median, place, "|", color="black", ms=14, mew=1.5)
        if first:
            _label(axes, (oracle.median, place), ORACLE, "black", below=True)
    if own is not None:
        axes.plot([own.least, own.most], [place, place], color=COLOURS[0], lw=1.2)
        axes.plot(own.median, place, "o", color=COLOURS[0], ms=8)
        name = f"{OWN} " if first else ""
        beyond = ">" if own.beyond else ""
        _label(axes, (own.median, place), f"{name}{beyond}{own.median:.2f}", COLOURS[0])


def _label(
    axes: Axes, at: tuple[float, float], text: str, colour: str, *, below: bool = False
) -> None:
    axes.annotate(
        text,
        at,
        xytext=(0, -15 if below else 8),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=colour,
    )
