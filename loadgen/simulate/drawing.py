"""Draws simulations: goodput against rate, the distribution of TTFT, the load of each replica.

Nothing is left to a legend that can stand beside its line.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from loadgen.replay.rows import duration
from loadgen.simulate.curves import SHARES, busiest, merged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from loadgen.simulate.curves import Load
    from loadgen.simulate.task import Finished

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6d31", "#555555")
"""Okabe and Ito's, told apart by the colour-blind too, and two more; then they come again."""

GREY = "#666666"
_COLUMNS = 4
_LABEL_PT = 8
_LABEL_GAP = 0.052
"""Least distance of two labels, as a share of the height of a panel."""


class Line(NamedTuple):
    """One policy in one panel."""

    label: str
    colour: str
    xs: list[float]
    ys: list[float]


def draw(path: Path, finished: Sequence[Finished], slo: str) -> None:
    """Draw simulations of one workload on one fleet.

    Args:
        path: Where to; its ending says which kind of picture.
        finished: The simulations, with curves.
        slo: The objective, in words.

    Raises:
        OSError: It cannot be written.
    """
    by_policy: dict[str, list[Finished]] = {}
    for each in finished:
        by_policy.setdefault(short(each.row.policy), []).append(each)
    rows = -(-len(by_policy) // _COLUMNS)
    figure = Figure(figsize=(11, 4.2 + 2.1 * rows), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=[4.0, 2.1 * rows])
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    first = finished[0].row
    title = f"{first.workload} on {first.fleet}; SLO {slo}"
    upper.suptitle(title, x=0.01, ha="left", fontsize=10, color=GREY)
    left, right = upper.subplots(1, 2)
    _draw_goodput(left, by_policy)
    _draw_ttft(right, by_policy)
    panels = lower.subplots(rows, _COLUMNS, squeeze=False, sharey=True)
    _draw_loads([axes for row in panels for axes in row], by_policy)
    figure.savefig(path, dpi=150)


def short(policy: str) -> str:
    """A policy's label as it fits beside a line: a plugin's module left out, options below."""
    name, plus, options = policy.partition("+")
    parts = [name.rpartition(":")[2], *(options.split("+") if plus else ())]
    return "\n+ ".join(parts)


def colour_of(number: int) -> str:
    """The colour of the policy of that number."""
    return COLOURS[number % len(COLOURS)]


def _draw_goodput(axes: Axes, by_policy: dict[str, list[Finished]]) -> None:
    searched = any(each.row.capacity_rps for group in by_policy.values() for each in group)
    lines = []
    for number, (policy, group) in enumerate(by_policy.items()):
        points = _medians(group) if not searched else _all_points(group)
        line = Line(policy, colour_of(number), [x for x, _ in points], [y for _, y in points])
        style = "none" if searched else "solid"
        axes.plot(line.xs, line.ys, color=line.colour, marker="o", ms=3, lw=1.5, ls=style)
        capacities = [each.row.capacity_rps for each in group if each.row.capacity_rps]
        if capacities:
            axes.axvline(median(capacities), color=line.colour, lw=1, ls=":")
        lines.append(line)
    finish(axes, "arrivals (requests/s)", "requests within SLO (%)")
    label_ends(axes, lines)


def _draw_ttft(axes: Axes, by_policy: dict[str, list[Finished]]) -> None:
    shares = [100 * number / (SHARES - 1) for number in range(SHARES)]
    lines = []
    for number, (policy, group) in enumerate(by_policy.items()):
        highest = max(each.row.rate_rps for each in group) if len(_medians(group)) > 1 else None
        curves = [
            each.curves.ttft_s
            for each in group
            if each.curves is not None
            and each.curves.ttft_s
            and (highest is None or _is_busiest(each, group))
        ]
        if not curves:
            continue
        xs = merged(curves)
        axes.plot(xs, shares, color=colour_of(number), lw=1.5)
        lines.append(Line(policy, colour_of(number), xs, shares))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
    axes.set_ylim(0, 101)
    finish(axes, "time to first token (at the highest rate)", "requests (%)")
    label_quantiles(axes, lines)


def _draw_loads(panels: Sequence[Axes], by_policy: dict[str, list[Finished]]) -> None:
    loads = {policy: _load(group) for policy, group in by_policy.items()}
    highest = max((busiest(load.in_flight) for load in loads.values() if load), default=1.0)
    for number, (policy, load) in enumerate(loads.items()):
        axes = panels[number]
        axes.set_title(policy, fontsize=_LABEL_PT, loc="left", color=colour_of(number))
        if load is not None:
            _draw_load(axes, load, colour_of(number))
        axes.set_ylim(0, highest * 1.05 or 1)
        wanted = "requests in flight\non each replica" if number % _COLUMNS == 0 else ""
        finish(axes, "time (s)", wanted)
    for axes in panels[len(loads) :]:
        axes.set_visible(False)


def _draw_load(axes: Axes, load: Load, colour: str) -> None:
    for counts in load.in_flight.values():
        axes.plot(load.times_s, counts, color=colour, lw=0.6, alpha=0.55)
    if any(load.held):
        axes.plot(load.times_s, load.held, color="black", lw=0.8, ls=(0, (2, 1)))
        place = max(range(len(load.held)), key=load.held.__getitem__)
        axes.annotate(
            "held", (load.times_s[place], load.held[place]), fontsize=_LABEL_PT - 1, va="bottom"
        )


def label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the name of each line beside its last point, none over another."""
    low, high = axes.get_ylim()
    ends = sorted((line.ys[-1], number) for number, line in enumerate(lines) if line.ys)
    free = low
    for y, number in ends:
        line = lines[number]
        height = _LABEL_GAP * (high - low) * (1 + line.label.count("\n"))
        place = max(y, free + height / 2)
        free = place + height / 2
        axes.annotate(
            line.label,
            (line.xs[-1], y),
            xytext=(1.01, (place - low) / (high - low)),
            textcoords="axes fraction",
            color=line.colour,
            fontsize=_LABEL_PT,
            va="center",
            annotation_clip=False,
        )


def label_quantiles(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the name of each line, with its median and p99, in the corner that stays free."""
    for number, line in enumerate(sorted(lines, key=lambda each: each.xs[len(each.xs) // 2])):
        p50, p99 = line.xs[(SHARES - 1) // 2], line.xs[round(0.99 * (SHARES - 1))]
        axes.annotate(
            f"{line.label.replace(chr(10), ' ')}  {duration(p50)} / {duration(p99)}",
            (0.98, 0.06 + (len(lines) - 1 - number) * _LABEL_GAP),
            xycoords="axes fraction",
            color=line.colour,
            fontsize=_LABEL_PT,
            ha="right",
        )
    axes.annotate(
        "p50 / p99",
        (0.98, 0.06 + len(lines) * _LABEL_GAP),
        xycoords="axes fraction",
        color=GREY,
        fontsize=_LABEL_PT,
        ha="right",
    )


def finish(axes: Axes, x_label: str, y_label: str) -> None:
    """Label the axes, and take away what does not help to read them."""
    axes.set_xlabel(x_label, fontsize=_LABEL_PT, color=GREY)
    axes.set_ylabel(y_label, fontsize=_LABEL_PT, color=GREY)
    axes.tick_params(labelsize=_LABEL_PT, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)


def _medians(group: Sequence[Finished]) -> list[tuple[float, float]]:
    """Rate and goodput for each factor: medians over the seeds."""
    by_scale: dict[float, list[Finished]] = {}
    for each in group:
        by_scale.setdefault(each.row.rate_scale, []).append(each)
    return [
        (
            median(each.row.rate_rps for each in by_scale[scale]),
            100 * median(each.row.goodput for each in by_scale[scale]),
        )
        for scale in sorted(by_scale)
    ]


def _all_points(group: Sequence[Finished]) -> list[tuple[float, float]]:
    return sorted((point.rate_rps, 100 * point.goodput) for each in group for point in each.points)


def _is_busiest(each: Finished, group: Sequence[Finished]) -> bool:
    return each.row.rate_scale == max(other.row.rate_scale for other in group)


def _load(group: Sequence[Finished]) -> Load | None:
    """Of the first seed, at the highest rate."""
    curves = next((each.curves for each in group if _is_busiest(each, group)), None)
    return None if curves is None else curves.load
