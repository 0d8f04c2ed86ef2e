"""How late this process itself is: reads that wait for the CPU would look like slow replicas."""

from __future__ import annotations

import asyncio
from array import array
from time import monotonic
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

BEAT_S = 0.05


class Heartbeat:
    """Measures, while it is entered, how much later than asked the event loop wakes it."""

    def __init__(self) -> None:
        self.lags_s = array("d")
        """Seconds too late, one for each beat."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _beat(self) -> None:
        while True:
            due_s = monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.lags_s.append(max(monotonic() - due_s, 0.0))
