"""The study as a program: ``python -m loadgen.study``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from loadgen.commandline import BadInput
from loadgen.simulate.plot import DrawingError, check_drawing
from loadgen.simulate.screen import run_watched
from loadgen.simulate.workload import plan
from loadgen.study.cases import BASELINES, WORKLOADS, fleets, small_fleets
from loadgen.study.figures import Figures
from loadgen.study.steps import Case, Study
from loadgen.study.store import Store, Trust, sources_digest
from loadgen.study.tables import all_tables
from loadgen.trace.errors import TraceError

QUICK_BASELINES = ("least_requests", "cache_aware", "lmetric")
QUICK_LIMIT = 600
QUICK_TOLERANCE = 0.05
TOLERANCE = 0.01
SEEDS = 5


def _known(names: tuple[str, ...], known: list[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise click.UsageError(f"{option} {name!r} is not known; allowed: {', '.join(known)}")


def _study(
    workloads: tuple[str, ...],
    on: tuple[str, ...],
    folder: Path | None,
    seeds: int | None,
    *,
    quick: bool,
) -> Study:
    _known(workloads, [each.name for each in WORKLOADS], "--workload")
    every = small_fleets() if quick else fleets()
    _known(on, [each.name for each in every], "--fleet")
    cases = [
        Case(workload, fleet)
        for fleet in every
        if not on or fleet.name in on
        for workload in WORKLOADS
        if not workloads or workload.name in workloads
    ]
    return Study(
        cases=cases,
        baselines=QUICK_BASELINES if quick else BASELINES,
        seeds=seeds or (1 if quick else SEEDS),
        tolerance=QUICK_TOLERANCE if quick else TOLERANCE,
        folder=folder,
        limit=QUICK_LIMIT if quick else None,
        oracle=not quick,
        thorough=not quick,
    )


def _check_traces(study: Study) -> None:
    for workload, fleet in {case.workload: case.fleet for case in study.cases}.items():
        try:
            plan(study.selection(Case(workload, fleet)).open(), fleet.settings.slo)
        except TraceError as error:
            raise BadInput(str(error)) from error


@click.command()
@click.option("--quick", is_flag=True, help="A glance of some minutes: few requests, one seed.")
@click.option(
    "--traces",
    "folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder with the whole traces; else the cuts that come with pointsman are used.",
)
@click.option("--workload", "workloads", multiple=True, metavar="NAME", help="Only these.")
@click.option("--fleet", "on", multiple=True, metavar="NAME", help="Only on these.")
@click.option("--seeds", type=click.IntRange(1, 100), metavar="N", help="[default: 5; quick: 1]")
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="[default: all cores]")
@click.option(
    "--keep", is_flag=True, help="Take over results of the own policy though the code has changed."
)
@click.option(
    "--rerun-baselines",
    is_flag=True,
    help="Simulate the other policies again when the code has changed.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/study"),
    show_default=True,
    help="Where results, tables and pictures go, and where an interrupted study goes on.",
)
def command(
    *,
    quick: bool,
    folder: Path | None,
    workloads: tuple[str, ...],
    on: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    keep: bool,
    rerun_baselines: bool,
    out: Path,
) -> None:
    """Simulate all policies on all workloads and fleets; write tables and pictures."""
    try:
        check_drawing()
    except DrawingError as error:
        raise click.ClickException(str(error)) from error
    study = _study(workloads, on, folder, seeds, quick=quick)
    _check_traces(study)
    trust = Trust(own=keep, others=not rerun_baselines)
    out = out / "quick" if quick else out
    try:
        store = Store(out / "results", trust, sources_digest())
        steps = study.steps(store)
        results = run_watched(steps, jobs or len(os.sched_getaffinity(0)), store.keep)
        files = _show(Figures(study, results), out)
    except OSError as error:
        raise BadInput(f"{error.filename}: {error.strerror or error}") from error
    click.echo(f"{len(results)} simulations, {store.reused} of them known before; wrote:")
    for file in files:
        click.echo(f"  {file}")


def _show(figures: Figures, out: Path) -> list[Path]:
    from loadgen.study.pictures import draw_all  # noqa: PLC0415 - matplotlib may not be there

    table = out / "tables.md"
    table.write_text(all_tables(figures), encoding="utf-8")
    return [table, *draw_all(figures, out)]


def main() -> int:
    """Run the study; the result is the exit status."""
    try:
        command.main(prog_name="python -m loadgen.study", standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        click.echo(f"study: {error.format_message()}", err=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
