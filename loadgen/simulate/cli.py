"""``pointsman simulate``."""

from __future__ import annotations

import shlex
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadgen import commandline
from loadgen.replay.parameters import folder_exists
from loadgen.simulate.capacity import DEFAULT_TARGET, DEFAULT_TOLERANCE
from loadgen.simulate.parameters import (
    DEFAULT_REPLICAS,
    Given,
    check_engines,
    jobs_of,
    policies_of,
    profile_of,
    settings_of,
    share_of,
)
from loadgen.simulate.results import Report, dump_report
from loadgen.simulate.scenario import MAX_REPLICAS
from loadgen.simulate.settings import Delays
from loadgen.simulate.study import run_tasks
from loadgen.simulate.table import print_rows
from loadgen.simulate.task import Search, Task
from loadgen.simulate.workload import plan
from loadgen.trace.errors import TraceError
from loadgen.trace.selection import Selection
from router import __version__

if TYPE_CHECKING:
    from loadgen.simulate.results import Row
    from loadgen.simulate.settings import Settings
    from loadgen.trace.request import Trace

DEFAULT_SLO = "ttft=2s+0.25ms@4096,tpot=60ms"

_DELAYS = Delays()
_WIDTH = 100
"""Of what is printed where there is no terminal."""


@click.command(
    "simulate",
    cls=commandline.RecordedCommand,
    short_help="Simulate policies on a trace, in virtual time.",
    epilog="Exit status: 0; 2 on bad input; 130 when interrupted.",
)
@click.argument("trace", nargs=-1, required=True)
@click.option(
    "--replicas",
    type=click.IntRange(1, MAX_REPLICAS),
    metavar="N",
    help=f"Size of the fleet.  [default: what --scenario says, or {DEFAULT_REPLICAS}]",
)
@click.option(
    "--profile",
    default="8b-h100",
    show_default=True,
    callback=profile_of,
    help="Model and GPUs of a replica: a name, or a file that ends in .toml.",
)
@click.option(
    "--policy",
    default="round_robin,least_requests",
    show_default=True,
    callback=policies_of,
    metavar="A,B,...",
    help="Policies to try, as `pointsman policies` lists them.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="Simulate N times, with seeds 0 to N-1.",
)
@commandline.rate_scale(
    "Let requests arrive F times as fast; with --find-capacity: where to begin."
)
@commandline.jitter
@commandline.start
@commandline.duration()
@commandline.limit
@commandline.max_input_tokens
@commandline.max_output_tokens
@commandline.slo(DEFAULT_SLO, "; policies that ask for it are told")
@commandline.max_batched_tokens
@click.option(
    "--find-capacity",
    is_flag=True,
    help="Search the highest rate at which --target of the requests meet the objective.",
)
@click.option(
    "--target",
    callback=share_of,
    metavar="SHARE",
    help=f"With --find-capacity.  [default: {DEFAULT_TARGET:.0%}]",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0001, 0.5),
    default=DEFAULT_TOLERANCE,
    show_default=True,
    metavar="SHARE",
    help="Where the search ends: a rate this much higher missed the target.",
)
@click.option(
    "--scenario",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F.yaml",
    help="Unequal replicas, and faults: see below.",
)
@click.option(
    "--network-delay",
    type=click.FloatRange(0, 10),
    default=_DELAYS.network_s,
    show_default=True,
    metavar="SECONDS",
    help="Between router and replica, each way.",
)
@click.option(
    "--poll-interval",
    type=click.FloatRange(0.001, 3600),
    default=_DELAYS.poll_interval_s,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at a replica's metrics, less or more by a tenth.",
)
@click.option(
    "--poll-delay",
    type=click.FloatRange(0, 3600),
    default=_DELAYS.poll_answer_s,
    show_default=True,
    metavar="SECONDS",
    help="How much later than its gauges are read a replica's metrics leave it.",
)
@commandline.timeout("A client whose answer has not ended by then leaves.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Simulations at a time, each in its process.  [default: one for each core]",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=folder_exists,
    help="Write the results here, as JSON.",
)
@click.pass_context
def command(ctx: click.Context, /, trace: tuple[str, ...], **given: Unpack[Given]) -> None:
    """Simulate the router over a fleet of simulated engines, much faster than real time.

    Each TRACE is simulated under each policy and each seed. The dispatcher and the policies are
    those of `pointsman serve`; the engines those of `pointsman replica`.

    TRACE is a file (Azure CSV, Mooncake JSONL or pointsman JSONL; .gz too) or one of: azure-code,
    azure-conv, mooncake-conversation, servegen-r1, toolagent, bimodal[:rate=4,n=600,seed=0,...].
    The last is drawn anew for each seed.

    \b
    A scenario, whose replicas are counted from 0, and whose times are simulated seconds:
      replicas: [{count: 4}, {count: 4, speed: 0.5, profile: 8b-a100}]
      faults:
        - {do: die, replica: 2, at_s: 60}
        - {do: return, replica: 2, at_s: 120}
        - {do: slow, replica: 5, at_s: 30, factor: 3}
    """
    if given["target"] is not None and not given["find_capacity"]:
        raise click.UsageError("--target goes with --find-capacity")
    settings = settings_of(given)
    traces = [_checked(spec, given, settings) for spec in trace]
    rows = _run(_tasks(trace, given, settings), jobs_of(given))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    print_rows(rows, str(given["slo"]), console, searched=given["find_capacity"])
    if given["out"] is not None:
        arguments = shlex.join(commandline.recorded(ctx))
        _write(given["out"], _report(arguments, given, traces, rows))


def _selection(spec: str, given: Given, seed: int) -> Selection:
    return Selection(
        spec=spec,
        jitter=given["jitter"],
        seed=seed,
        start_s=given["start"],
        duration_s=given["duration"],
        limit=given["limit"],
        max_input_tokens=given["max_input_tokens"],
        max_output_tokens=given["max_output_tokens"],
    )


def _checked(spec: str, given: Given, settings: Settings) -> Trace:
    """Read a trace in this process first, so that mistakes are told before anything runs."""
    try:
        trace = _selection(spec, given, 0).open()
        workload = plan(trace, settings.slo)
    except TraceError as error:
        raise commandline.BadInput(str(error)) from error
    if given["find_capacity"] and not trace.duration_s:
        raise commandline.BadInput(
            f"{spec}: all requests arrive at once, so there is no rate to search"
        )
    check_engines(settings, workload.key_tokens, spec)
    return trace


def _tasks(specs: tuple[str, ...], given: Given, settings: Settings) -> list[Task]:
    search = None
    if given["find_capacity"]:
        search = Search(target=given["target"] or DEFAULT_TARGET, tolerance=given["tolerance"])
    return [
        Task(
            selection=_selection(spec, given, seed),
            policy=policy,
            seed=seed,
            settings=settings,
            rate_scale=given["rate_scale"],
            search=search,
        )
        for spec in specs
        for policy in given["policy"]
        for seed in range(given["seeds"])
    ]


def _run(tasks: list[Task], jobs: int) -> list[Row]:
    console = Console(stderr=True)
    columns = (
        TextColumn("simulated"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task("simulated", total=len(tasks), last="")

        def done(row: Row) -> None:
            progress.update(bar, advance=1, last=f"{row.workload}, {row.policy}, {row.seed}")

        try:
            return run_tasks(tasks, jobs, done)
        except BrokenExecutor as error:
            raise click.ClickException("a process was killed; try fewer --jobs") from error


def _report(arguments: str, given: Given, traces: list[Trace], rows: list[Row]) -> Report:
    searched = given["find_capacity"]
    return Report(
        pointsman=__version__,
        command=arguments,
        slo=str(given["slo"]),
        target=(given["target"] or DEFAULT_TARGET) if searched else None,
        tolerance=given["tolerance"] if searched else None,
        trace_changes={trace.name: list(trace.changes) for trace in traces},
        results=rows,
    )


def _write(path: Path, report: Report) -> None:
    try:
        path.write_bytes(dump_report(report))
    except OSError as error:
        raise commandline.BadInput(f"{path}: {error.strerror or error}") from error
