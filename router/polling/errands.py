"""What is done once for a replica that comes up, beside the looks at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from router.core.replica import Replica


class Errands:
    """Tasks, at most one a replica.

    Args:
        purpose: Their name, before the replica's.
    """

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        self._tasks: dict[Replica, asyncio.Task[None]] = {}

    def begin(
        self, replica: Replica, errand: Callable[[Replica], Coroutine[None, None, None]]
    ) -> None:
        """Run an errand for a replica, unless one is under way."""
        if replica in self._tasks:
            return
        task = asyncio.create_task(errand(replica), name=f"{self._purpose} {replica.name}")
        self._tasks[replica] = task
        task.add_done_callback(lambda _: self._tasks.pop(replica, None))

    async def aclose(self) -> None:
        """Give up all of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
