"""How far a number of simulations has come, on a terminal."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from loadgen.simulate.workers import run_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadgen.simulate.task import Finished
    from loadgen.simulate.workers import Step


def run_watched(
    steps: Sequence[Step],
    jobs: int,
    done: Callable[[str, Finished], None] | None = None,
) -> dict[str, Finished]:
    """As :func:`loadgen.simulate.workers.run_steps`, with a bar on the terminal, if there is one.

    Raises:
        click.ClickException: A process was killed.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("simulated"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[last]}"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        bar = progress.add_task("simulated", total=len(steps), last="")

        def ended(key: str, finished: Finished | None) -> None:
            progress.update(bar, advance=1)
            if finished is None:
                return
            row = finished.row
            progress.update(bar, last=f"{row.workload}, {row.policy}, {row.seed}")
            if done is not None:
                done(key, finished)

        try:
            return run_steps(steps, jobs, ended)
        except BrokenExecutor as error:
            raise click.ClickException("a process was killed; try fewer --jobs") from error
