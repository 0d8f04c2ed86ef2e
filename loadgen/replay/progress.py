"""The line that shows how a replay is getting on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console

    from loadgen.replay.run import Tally

_REFRESH_S = 0.25


@asynccontextmanager
async def progress_line(tally: Tally, console: Console) -> AsyncIterator[None]:
    """Show ``tally`` while entered; nothing where ``console`` is no terminal."""
    if not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("sent"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        refreshing = asyncio.create_task(_refresh(progress, tally))
        try:
            yield
        finally:
            refreshing.cancel()
            await asyncio.wait([refreshing])


async def _refresh(progress: Progress, tally: Tally) -> None:
    bar = progress.add_task("sent", total=None, state="")
    while True:
        state = f"{tally.open} open, {tally.succeeded} done, {tally.failed} failed"
        progress.update(bar, total=tally.planned or None, completed=tally.sent, state=state)
        progress.refresh()
        await asyncio.sleep(_REFRESH_S)
