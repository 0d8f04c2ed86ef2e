"""``pointsman simulate``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from rich.console import Console

from loadgen import commandline
from loadgen.replay.parameters import folder_exists
from loadgen.simulate.capacity import DEFAULT_TARGET, DEFAULT_TOLERANCE
from loadgen.simulate.comparison import Comparison
from loadgen.simulate.parameters import (
    DEFAULT_REPLICAS,
    Given,
    check_engines,
    factors_of,
    fleets_of,
    jobs_of,
    picture_of,
    policies_of,
    profile_of,
    settings_of,
    share_of,
)
from loadgen.simulate.plot import plot, plot_files
from loadgen.simulate.results import Report, dump_report
from loadgen.simulate.scenario import MAX_REPLICAS
from loadgen.simulate.screen import run_watched
from loadgen.simulate.settings import LATE_SHARE, Delays
from loadgen.simulate.table import print_best_fleet, print_rows
from loadgen.simulate.task import Search
from loadgen.simulate.workload import plan
from loadgen.trace.errors import TraceError
from loadgen.trace.selection import Selection
from router import __version__

if TYPE_CHECKING:
    from loadgen.simulate.results import Row
    from loadgen.simulate.settings import Settings
    from loadgen.simulate.task import Finished
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
    "--prefill",
    type=click.IntRange(1, MAX_REPLICAS),
    metavar="N",
    help="Replicas that only compute prompts, for those of --decode; --replicas are then further "
    "ones that do both. Needs a policy that splits requests, such as prefill_decode.",
)
@click.option(
    "--decode",
    type=click.IntRange(1, MAX_REPLICAS),
    metavar="N",
    help="Replicas that answer with the KV that those of --prefill computed.",
)
@click.option(
    "--link-gbps",
    type=click.FloatRange(0.001, 1e6),
    default=400.0,
    show_default=True,
    metavar="G",
    help="How fast KV leaves or reaches a replica, in Gbit/s.",
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
    help="Policies to try, as `pointsman policies` lists them; with options: "
    "llm_d+queue_weight=3+....",
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
@click.option(
    "--late-gap",
    type=click.FloatRange(0.001, 3600),
    metavar="SECONDS",
    help=f"Count as good only answers of whose gaps between tokens {1 - LATE_SHARE:.0%} are no "
    "longer; policies are not told.",
)
@commandline.max_batched_tokens
@click.option(
    "--find-capacity",
    is_flag=True,
    help="Search the highest rate at which --target of the requests meet the objective.",
)
@click.option(
    "--find-ratio",
    is_flag=True,
    help="With --find-capacity: try each split of the fleet into replicas for prefill and for "
    "decode, and the fleet as it is.",
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
    "--rates",
    callback=factors_of,
    metavar="F,F,...",
    help="Simulate at each of these factors on the rate of the trace.",
)
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
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=picture_of,
    metavar="F.png|F.svg",
    help="Draw goodput against rate, the distribution of TTFT, and the load of each replica. A "
    "picture for each TRACE, if there are several. Needs matplotlib.",
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
      replicas: [{count: 4}, {count: 4, speed: 0.5, profile: 8b-a100, role: decode}]
      faults:
        - {do: die, replica: 2, at_s: 60}
        - {do: return, replica: 2, at_s: 120}
        - {do: slow, replica: 5, at_s: 30, factor: 3}
        - {do: hang, replica: 0, at_s: 40}
        - {do: resume, replica: 0, at_s: 50}
        - {do: metrics, replica: 1, at_s: 60, how: frozen}
    """
    if given["target"] is not None and not given["find_capacity"]:
        raise click.UsageError("--target goes with --find-capacity")
    if given["rates"] and (given["find_capacity"] or given["rate_scale"] != 1):
        raise click.UsageError("--rates goes with neither --find-capacity nor --rate-scale")
    settings = settings_of(given)
    selections = [_selection(spec, given) for spec in trace]
    traces = [_checked(selection, given, settings) for selection in selections]
    steps = _comparison(selections, given, fleets_of(given, settings)).steps()
    results = run_watched(steps, jobs_of(given))
    finished = [results[step.key] for step in steps]
    rows = [each.row for each in finished]
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    print_rows(rows, str(given["slo"]), console, searched=given["find_capacity"])
    if given["find_ratio"]:
        print_best_fleet(rows, console)
    if given["plot"] is not None:
        _plot(given["plot"], finished, str(given["slo"]))
    if given["out"] is not None:
        arguments = shlex.join(commandline.recorded(ctx))
        _write(given["out"], _report(arguments, given, traces, rows))


def _selection(spec: str, given: Given) -> Selection:
    return Selection(
        spec=spec,
        jitter=given["jitter"],
        start_s=given["start"],
        duration_s=given["duration"],
        limit=given["limit"],
        max_input_tokens=given["max_input_tokens"],
        max_output_tokens=given["max_output_tokens"],
    )


def _checked(selection: Selection, given: Given, settings: Settings) -> Trace:
    """Read a trace in this process first, so that mistakes are told before anything runs."""
    try:
        trace = selection.open()
        workload = plan(trace, settings.slo)
    except TraceError as error:
        raise commandline.BadInput(str(error)) from error
    if given["find_capacity"] and not trace.duration_s:
        raise commandline.BadInput(
            f"{selection.spec}: all requests arrive at once, so there is no rate to search"
        )
    check_engines(settings, workload.key_tokens, selection.spec)
    return trace


def _comparison(selections: list[Selection], given: Given, fleets: list[Settings]) -> Comparison:
    search = None
    if given["find_capacity"]:
        search = Search(target=given["target"] or DEFAULT_TARGET, tolerance=given["tolerance"])
    return Comparison(
        selections=selections,
        policies=given["policy"],
        seeds=given["seeds"],
        fleets=fleets,
        rates=given["rates"] or (given["rate_scale"],),
        search=search,
        curves=given["plot"] is not None,
    )


def _plot(path: Path, finished: list[Finished], slo: str) -> None:
    by_workload: dict[str, list[Finished]] = {}
    for each in finished:
        by_workload.setdefault(each.row.workload, []).append(each)
    names = plot_files(path, list(by_workload))
    for name, group in zip(names, by_workload.values(), strict=True):
        try:
            plot(name, group, slo)
        except OSError as error:
            raise commandline.BadInput(f"{name}: {error.strerror or error}") from error


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
