"""``python -m tests.bench``: what pointsman costs, as ratios to its peers in the same run.

Absolute figures differ by machine and by the hour; ratios of two routers that were measured in
turns within one run do not. Each round takes every router once, so that a slow minute of the
machine hits all of them alike.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from tests.bench import poll_page, prefix_index
from tests.bench.load import Result
from tests.bench.peers import Endpoint, available
from tests.bench.processes import (
    BenchError,
    Cores,
    answers,
    free_port,
    on,
    python_module,
    running,
)
from tests.bench.report import Figures, as_json, goals, table

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLICAS = 4
PLAIN_CONNECTIONS = 32
PACED_CONNECTIONS = 8
STREAMS = 200
GAP_S = 0.020
LOAD_DEADLINE_S = 60
BUSY_SHARE = 0.5
"""Load average per core, before the start, from which on the figures are not to be trusted."""


@contextmanager
def fleet(folder: Path, cores: Cores) -> Iterator[list[int]]:
    """The fake replicas; yields their ports."""
    with ExitStack() as stack:
        ports = []
        for number in range(REPLICAS):
            port, log = free_port(), folder / f"replica-{number}.log"
            command = python_module("tests.fakes.fast_replica", "--port", str(port))
            command += ["--gap-ms", str(GAP_S * 1000)]
            process = stack.enter_context(running(f"replica {number}", command, log, cores.others))
            answers(port, "/health", process, log)
            ports.append(port)
        yield ports


def load(kind: str, endpoint: Endpoint, connections: int, window_s: float, cores: Cores) -> Result:
    """Run the load client once.

    Raises:
        BenchError: It failed, or saw an error.
    """
    arguments = [kind, "--port", str(endpoint.port), "--pid", str(endpoint.pid)]
    arguments += ["--connections", str(connections), "--window-s", str(window_s)]
    command = python_module("tests.bench.load", *arguments)
    with on(cores.others):
        done = subprocess.run(command, capture_output=True, check=False, timeout=LOAD_DEADLINE_S)
    if done.returncode != 0:
        raise BenchError(f"the load client failed: {done.stderr.decode()[-2000:]}")
    return Result(**json.loads(done.stdout))


def measure(endpoint: Endpoint, figures: Figures, window_s: float, cores: Cores) -> None:
    """One round of one router: all three loads; saturation is of no interest without a router."""
    if endpoint.pid:
        figures.add_plain(load("plain", endpoint, PLAIN_CONNECTIONS, window_s, cores))
    figures.add_paced(load("paced", endpoint, PACED_CONNECTIONS, window_s / 2, cores))
    streams = load("chunk", endpoint, STREAMS, window_s, cores)
    figures.add_chunk(streams, STREAMS / GAP_S * streams.window_s)


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, help="Turns that every router gets.")
@click.option("--window-s", default=3.0, show_default=True, help="Length of each measurement.")
@click.option("--only", multiple=True, help="Only these routers (may be repeated).")
@click.option("--pin", is_flag=True, help="Give the router a core of its own (and no other).")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
def main(rounds: int, window_s: float, only: tuple[str, ...], pin: bool, out: Path | None) -> None:
    """Run the bench."""
    console = Console()
    peers, missing = available(console.print)
    peers = [peer for peer in peers if not only or peer.name in only]
    cores = Cores.split(pin=pin)
    load_before, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load_before > cpus * BUSY_SHARE:
        console.print(f"The machine is busy (load {load_before:.1f}): figures are disturbed.")
    figures = {peer.name: Figures() for peer in peers}
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as name:
        folder = Path(name)
        with fleet(folder, cores) as replicas, console.status("starting") as status:
            for number in range(rounds):
                for peer in peers:
                    status.update(f"round {number + 1} of {rounds}: {peer.name}")
                    with peer.start(replicas, folder, cores.router) as endpoint:
                        measure(endpoint, figures[peer.name], window_s, cores)
        with on(cores.router):
            looks = poll_page.run()
            prefixes = prefix_index.run()
    console.print(table(figures), poll_page.table(looks), prefix_index.table(prefixes))
    made = goals(figures, looks[0].ms_per_100_kb)
    for line in [*missing, *(goal.line() for goal in made)]:
        console.print(line, highlight=False)
    failed = [name for name, row in figures.items() if row.errors]
    for name in failed:
        console.print(f"{name}: {figures[name].errors} errors", highlight=False)
    if out is not None:
        extra = {
            "machine": platform.processor() or platform.machine(),
            "pinned": cores.router is not None,
            "load_before": load_before,
            "missing": missing,
            "polling": [row._asdict() for row in looks],
            "prefix_index": [row._asdict() for row in prefixes],
        }
        out.write_text(json.dumps(as_json(figures, made, extra), indent=2) + "\n")
    if failed or any(goal.verdict == "FAIL" for goal in made):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
