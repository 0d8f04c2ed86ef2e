"""``pointsman replay``."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
import uvloop
from rich.console import Console

from loadgen import commandline
from loadgen.replay.client import ServerError
from loadgen.replay.compare import as_markdown, as_table, doubts
from loadgen.replay.options import DEFAULT_SLO, ReplayOptions
from loadgen.replay.parameters import Given, base_url, folder_exists
from loadgen.replay.progress import progress_line
from loadgen.replay.report import ReportError, dump_report, load_report
from loadgen.replay.run import Tally, run
from loadgen.replay.table import print_report
from loadgen.trace import bimodal
from loadgen.trace.errors import TraceError
from loadgen.trace.names import SHIPPED
from loadgen.trace.selection import Selection

if TYPE_CHECKING:
    from loadgen.replay.report import Report
    from loadgen.trace.request import Trace

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_NAMES = ", ".join((*SHIPPED, f"{bimodal.NAME}[:key=value,...]"))


@click.command(
    "replay",
    cls=commandline.RecordedCommand,
    short_help="Replay a trace against a server and measure it.",
    epilog="Exit status: 0; 1 when requests failed; 2 on bad input; 130 when interrupted.",
)
@click.argument("trace", nargs=-1)
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    callback=base_url,
    help="Base URL of the server.",
)
@click.option("--model", help="Model to ask for.  [default: the first that the server lists]")
@click.option(
    "--endpoint",
    type=click.Choice(["chat", "completions"]),
    default="chat",
    show_default=True,
    help="API to speak.",
)
@commandline.start
@commandline.duration()
@commandline.limit
@commandline.rate_scale()
@commandline.jitter
@commandline.seed
@commandline.max_input_tokens
@commandline.max_output_tokens
@commandline.slo(
    str(DEFAULT_SLO),
    "; ttft=2s+0.25ms@4096 allows 0.25 ms more for each prompt token above 4096",
)
@commandline.timeout()
@click.option(
    "--speed",
    type=commandline.ABOVE_ZERO,
    callback=commandline.finite,
    default=1,
    show_default=True,
    metavar="K",
    help="For simulated replicas at --speed K: send K times as fast, report times times K.",
)
@click.option("--salt", help="Part of every prompt's text.  [default: a new one for each run]")
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the bearer token.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=folder_exists,
    help="Write the report here, as JSON.",
)
@click.option("--compare", is_flag=True, help="Print the reports named side by side instead.")
@click.option("--markdown", is_flag=True, help="With --compare: as a Markdown table.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    trace: tuple[str, ...],
    *,
    compare: bool,
    markdown: bool,
    **given: Unpack[Given],
) -> None:
    """Send the requests of TRACE at their own times and measure what comes back.

    TRACE is a file (Azure CSV, Mooncake JSONL or pointsman JSONL; .gz too) or one of: azure-code,
    azure-conv, mooncake-conversation, servegen-r1, toolagent, bimodal[:rate=4,n=600,seed=0,...].
    """
    if compare:
        _compare(trace, markdown=markdown)
        return
    if markdown:
        raise click.UsageError("--markdown goes with --compare")
    if len(trace) != 1:
        raise click.UsageError(f"name one trace: a file, or one of {_NAMES}")
    report = _replay(_open(trace[0], given), _options(given))
    report.command = shlex.join(commandline.recorded(ctx))
    print_report(report, Console())
    if given["out"] is not None:
        _write(given["out"], report)
    if report.interrupted:
        ctx.exit(EXIT_INTERRUPTED)
    if report.requests.failed:
        ctx.exit(EXIT_FAILED)


def _open(spec: str, given: Given) -> Trace:
    """The trace as it is to be sent."""
    selection = Selection(
        spec=spec,
        jitter=given["jitter"],
        seed=given["seed"],
        start_s=given["start"],
        duration_s=given["duration"],
        limit=given["limit"],
        max_input_tokens=given["max_input_tokens"],
        max_output_tokens=given["max_output_tokens"],
        rate_scale=given["rate_scale"],
    )
    try:
        return selection.open()
    except TraceError as error:
        raise commandline.BadInput(str(error)) from error


def _options(given: Given) -> ReplayOptions:
    options = ReplayOptions(
        url=given["url"],
        model=given["model"],
        endpoint=given["endpoint"],
        slo=given["slo"],
        timeout_s=given["timeout"],
        speed=given["speed"],
        api_key=_api_key(given["api_key_env"]),
    )
    return options if given["salt"] is None else replace(options, salt=given["salt"])


def _api_key(variable: str | None) -> str | None:
    """The key itself never stands on a command line, where anyone could read it."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        hint = "--api-key-env"
        raise click.BadParameter(f"the environment has no {variable}", param_hint=hint)
    return key


def _replay(trace: Trace, options: ReplayOptions) -> Report:
    _allow_many_connections()
    try:
        return uvloop.run(_watched(trace, options))
    except ServerError as error:
        raise commandline.BadInput(str(error)) from error


async def _watched(trace: Trace, options: ReplayOptions) -> Report:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    tally = Tally()
    async with progress_line(tally, Console(stderr=True)):
        return await run(trace, options, stop=stop, tally=tally)


def _allow_many_connections() -> None:
    """An open loop holds as many connections as the server is behind; the soft limit is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write(path: Path, report: Report) -> None:
    try:
        path.write_bytes(dump_report(report))
    except OSError as error:
        raise commandline.BadInput(f"{path}: {error.strerror or error}") from error


def _compare(paths: tuple[str, ...], *, markdown: bool) -> None:
    if not paths:
        raise click.UsageError("name the reports to compare")
    reports = {}
    for path in map(Path, paths):
        name = path.stem if path.stem not in reports else str(path)
        try:
            reports[name] = load_report(path.read_bytes())
        except (OSError, ReportError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise commandline.BadInput(f"{path}: {reason}") from error
    if markdown:
        click.echo(as_markdown(reports), nl=False)
    else:
        Console().print(as_table(reports))
    for doubt in doubts(reports):
        click.echo(f"warning: {doubt}", err=True)
