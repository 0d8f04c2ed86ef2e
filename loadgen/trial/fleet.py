"""The simulated fleet of a trial: replicas that can be killed and come back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from loadgen.trial.processes import ChildProcess, Processes


@dataclass(slots=True, frozen=True, kw_only=True)
class FleetSettings:
    """What the fleet of a trial is made of."""

    replicas: int = 4
    profile: str = "8b-h100"
    """A name that ``pointsman replica`` knows, or a file."""

    speed: float = 1.0
    """Seconds of the simulated engines in a real one."""

    max_batched_tokens: int | None = None
    """Token budget of a step; None: the profile's."""


class SimulatedFleet:
    """Equal replicas, each a process of its own.

    Args:
        processes: Starts and ends them.
        settings: What they are.
    """

    def __init__(self, processes: Processes, settings: FleetSettings) -> None:
        self._processes = processes
        self._settings = settings
        self._replicas: list[ChildProcess] = []
        self.urls: list[str] = []

    async def start(self) -> None:
        """Start all of them and wait until they listen.

        Raises:
            TrialError: One cannot be started.
        """
        started = await asyncio.gather(*map(self._start, range(self._settings.replicas)))
        self._replicas = [process for process, _ in started]
        self.urls = [url for _, url in started]

    async def kill(self, index: int) -> str:
        """SIGKILL a replica in the midst of what it does; return its name, host and port."""
        await self._replicas[index].kill()
        return urlsplit(self.urls[index]).netloc

    async def restart(self, index: int) -> None:
        """Bring a killed replica back at its old address, with a cold cache.

        Raises:
            TrialError: It cannot be started.
        """
        port = urlsplit(self.urls[index]).port or 0
        self._replicas[index], _ = await self._start(index, port)

    async def _start(self, index: int, port: int = 0) -> tuple[ChildProcess, str]:
        settings = self._settings
        arguments = ["replica", "--port", str(port), "--profile", settings.profile]
        arguments += ["--speed", str(settings.speed), "--load-time", "0"]
        if settings.max_batched_tokens is not None:
            arguments += ["--max-batched-tokens", str(settings.max_batched_tokens)]
        process = await self._processes.start(f"replica {index + 1}", arguments)
        return process, "http://" + await process.told("http://")
