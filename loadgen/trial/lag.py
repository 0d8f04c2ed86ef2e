"""Whether the simulated replicas kept up with their own clocks.

One that does not is slower than the engine it stands for, for want of CPU; what is measured then
says nothing about policies.
"""

from __future__ import annotations

import asyncio
from statistics import median
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_S = 0.5
"""Seconds of the simulated engine. Above this the figures are not believed: it is a quarter of the
usual TTFT objective, and more than reading the longest prompts costs."""

_LOOK_S = 4.0
"""The replicas remember their worst lag for five seconds at least: nothing is missed in between."""

_METRIC = "pointsman_replica_clock_lag_seconds"
_TIMEOUT = aiohttp.ClientTimeout(total=_LOOK_S)


class LagWatch:
    """Looks again and again at how far each replica is behind.

    Args:
        replica_urls: The replicas.
        speed: Seconds of the simulated engines in a real one.
    """

    def __init__(self, replica_urls: Sequence[str], speed: float) -> None:
        self._urls = replica_urls
        self._speed = speed
        self._seen_s: list[float] = []

    @property
    def typical_s(self) -> float:
        """The median over replicas and looks of the worst lag of late, in seconds of the engine.

        Not the worst of all: one hiccup of the machine hurts one request, and a client that was
        held up by it says so itself.
        """
        return median(self._seen_s) * self._speed if self._seen_s else 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                await asyncio.sleep(_LOOK_S)
                for url in self._urls:
                    await self._look(session, url)

    async def _look(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            async with session.get(f"{url}/metrics") as response:
                page = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return  # killed on purpose; if not, whoever watches the processes tells of it
        self._seen_s += lags_s(page)


def lags_s(page: str) -> list[float]:
    """What a metrics page says of the lag, in real seconds; nothing when it does not."""
    lines = (line.rpartition(" ") for line in page.splitlines())
    return [float(value) for name, _, value in lines if name.partition("{")[0] == _METRIC]
