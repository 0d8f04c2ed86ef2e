"""``pointsman trial``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from rich.console import Console

from loadgen import commandline
from loadgen.replay.options import DEFAULT_SLO
from loadgen.trace.errors import TraceError
from loadgen.trace.selection import Selection
from loadgen.trial.errors import TrialError
from loadgen.trial.fleet import FleetSettings
from loadgen.trial.parameters import (
    Given,
    known_policies,
    known_profile,
    one_each,
)
from loadgen.trial.plan import Case, Kill, Plan
from loadgen.trial.reports import ReportFolder
from loadgen.trial.screen import Screen
from loadgen.trial.table import as_markdown, as_table, title
from loadgen.trial.trial import perform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.trial.run import Outcome

EXIT_FAILED = 1
EXIT_BY_SIGNAL = 128

_POLICIES = "round_robin,least_requests,power_of_two,least_kv"


@click.command(
    "trial",
    cls=commandline.RecordedCommand,
    epilog="Exit status: 0; 1 when requests failed though no replica was killed; 2 on bad input or "
    "when a process fails; 128 + N when ended by signal N.",
)
@click.option(
    "--trace",
    "traces",
    multiple=True,
    required=True,
    metavar="TRACE",
    help="What to send: a file, or a name that `pointsman replay --help` lists. May be repeated.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=(_POLICIES,),
    callback=known_policies,
    metavar="NAME,...",
    help="Who chooses the replica: names that `pointsman policies` lists, or package.module:Class. "
    f"[default: {_POLICIES.replace(',', ', ')}]",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Size of the fleet.",
)
@click.option(
    "--profile",
    default="8b-h100",
    show_default=True,
    callback=known_profile,
    help="Model and GPUs of a replica; `pointsman replica --help` lists them.",
)
@click.option(
    "--speed",
    type=commandline.ABOVE_ZERO,
    callback=commandline.finite,
    default=1.0,
    show_default=True,
    metavar="K",
    help="Let replicas run, and requests come, K times as fast; all times are told as if they did "
    "not. Needs K times the CPU.",
)
@commandline.max_batched_tokens
@commandline.start
@commandline.duration(
    "Take only what arrives in this time after --start. Once for all traces, or for each.",
    "durations",
    multiple=True,
)
@commandline.rate_scale(
    "Send F times as many requests per second. Once for all traces, or for each.",
    "rate_scales",
    default=None,
    multiple=True,
)
@commandline.jitter
@commandline.seed
@commandline.max_input_tokens
@commandline.max_output_tokens
@commandline.slo(str(DEFAULT_SLO), "; as for `pointsman replay`")
@commandline.timeout()
@click.option(
    "--kill-after",
    type=commandline.NOT_NEGATIVE,
    callback=commandline.finite,
    metavar="SECONDS",
    help="In every run, SIGKILL one replica this long after the first request.",
)
@click.option(
    "--back-after",
    type=commandline.NOT_NEGATIVE,
    callback=commandline.finite,
    metavar="SECONDS",
    help="Start it again this long after that, with a cold cache.  [default: it stays away]",
)
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the full report of each run below this folder, for `pointsman replay --compare`.",
)
@click.pass_context
def command(ctx: click.Context, /, *, markdown: bool, **given: Unpack[Given]) -> None:
    """Compare policies: replay traces through a router and simulated replicas.

    For each trace and policy it starts fresh replicas and a router with that policy, all as real
    processes on this machine, replays the trace through them, and ends them. What is compared is
    the router that serves, in real time.

    \b
    pointsman trial --trace mooncake-conversation --jitter --duration 60
    pointsman trial --trace bimodal:rate=8,n=300 --policy round_robin,my_policies:Mine
    """
    plan = _plan(given)
    reports = None if given["out"] is None else ReportFolder(given["out"], plan.traces)
    line = shlex.join(commandline.recorded(ctx))
    outcomes: list[Outcome] = []

    def ended(outcome: Outcome) -> None:
        outcome.report.command = line
        outcomes.append(outcome)
        if reports is not None:
            reports.write(outcome)

    try:
        signal = perform(plan, Screen(plan, Console(stderr=True)), ended)
    except TrialError as error:
        raise commandline.BadInput(str(error)) from error
    except OSError as error:
        raise commandline.BadInput(f"{error.filename}: {error.strerror or error}") from error
    _print(plan, outcomes, markdown=markdown)
    if signal is not None:
        ctx.exit(EXIT_BY_SIGNAL + signal)
    if any(outcome.report.requests.failed and not outcome.case.kill for outcome in outcomes):
        ctx.exit(EXIT_FAILED)


def _plan(given: Given) -> Plan:
    names = given["traces"]
    kill = None
    if given["kill_after"] is not None:
        kill = Kill(given["kill_after"], given["back_after"])
    elif given["back_after"] is not None:
        raise click.UsageError("--back-after goes with --kill-after")
    selections = [
        Selection(
            spec=spec,
            jitter=given["jitter"],
            seed=given["seed"],
            start_s=given["start"],
            duration_s=duration_s,
            max_input_tokens=given["max_input_tokens"],
            max_output_tokens=given["max_output_tokens"],
            rate_scale=rate_scale,
        )
        for spec, duration_s, rate_scale in zip(
            names,
            one_each("--duration", given["durations"], names, None),
            one_each("--rate-scale", given["rate_scales"], names, 1.0),
            strict=True,
        )
    ]
    try:
        traces = tuple(selection.open() for selection in selections)
    except TraceError as error:
        raise commandline.BadInput(str(error)) from error
    return Plan(
        traces=traces,
        cases=tuple(Case(policy, kill) for policy in given["policies"]),
        fleet=FleetSettings(
            replicas=given["replicas"],
            profile=given["profile"],
            speed=given["speed"],
            max_batched_tokens=given["max_batched_tokens"],
        ),
        slo=given["slo"],
        timeout_s=given["timeout"],
    )


def _print(plan: Plan, outcomes: Sequence[Outcome], *, markdown: bool) -> None:
    """The table of each trace that was run under a policy at least."""
    console = Console()
    for trace in plan.traces:
        of_trace = [outcome for outcome in outcomes if outcome.trace is trace]
        if not of_trace:
            continue
        if markdown:
            click.echo(as_markdown(of_trace))
        else:
            console.print(f"\n{title(of_trace)}", highlight=False, markup=False, soft_wrap=True)
            console.print(as_table(of_trace))
