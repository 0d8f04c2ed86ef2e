"""Simulated replicas, each a process of its own that can be killed, stopped and brought back."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.trial.processes import ChildProcess, Processes
    from tests.chaos.saboteur import Saboteur

MODEL = "m"


@dataclass(slots=True, frozen=True, kw_only=True)
class Size:
    """How large the replicas are."""

    replicas: int
    slots: int = 8
    """Sequences that each of them works on at once; further ones queue there."""

    speed: float = 0.5
    load_s: float = 1.0
    """Until one that was started again has its model."""

    @property
    def all_slots(self) -> int:
        """Streams that the whole fleet works on at once."""
        return self.replicas * self.slots


class ChaosReplica:
    """One replica.

    Args:
        name: What to call it in errors.
        processes: Who starts it.
        size: How large it is.
        more: Further arguments of its command.
    """

    def __init__(
        self, name: str, processes: Processes, size: Size, more: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.url = ""
        self.saboteur: Saboteur | None = None
        """Between the router and it, where a scenario wants that."""
        self._processes = processes
        self._size = size
        self._more = list(more)
        self._child: ChildProcess | None = None
        self._stopped = False

    @property
    def address(self) -> str:
        """Host and port; the router's name for it."""
        return self.routed_url.partition("://")[2]

    @property
    def routed_url(self) -> str:
        """Where the router finds it."""
        return self.url if self.saboteur is None else self.saboteur.url

    async def start(self, *, load_s: float = 0.0) -> None:
        """Start it, at the port that it had before, with nothing in its cache."""
        port = self.url.rpartition(":")[2] or "0"
        arguments = ["replica", "--port", port, "--model", MODEL]
        arguments += ["--max-sequences", str(self._size.slots)]
        arguments += ["--speed", str(self._size.speed), "--load-time", str(load_s), *self._more]
        self._child = await self._processes.start(self.name, arguments)
        self.url = "http://" + await self._child.told("http://")

    async def kill(self) -> None:
        """SIGKILL, in the midst of whatever it does."""
        self._stopped = False
        await self._child.kill()

    async def terminate(self) -> None:
        """SIGTERM, as whoever installs a new version does."""
        await self._child.stop()

    async def restart(self) -> None:
        """Bring it back cold."""
        await self.start(load_s=self._size.load_s)

    def stop(self) -> None:
        """SIGSTOP: its connections stand, and nothing comes."""
        self._stopped = True
        os.kill(self._child.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT, if it was stopped."""
        if self._stopped:
            self._stopped = False
            os.kill(self._child.pid, signal.SIGCONT)

    async def working_on(self) -> int:
        """How many requests it works on, by its own word."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as page:
            lines = (await page.text()).splitlines()
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting{")
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(names))

    async def faults(self, change: dict[str, Any] | None) -> None:
        """Set faults that the replica has itself; None: end them all."""
        async with aiohttp.ClientSession() as session:
            method = "DELETE" if change is None else "POST"
            async with session.request(method, f"{self.url}/faults", json=change) as answer:
                assert answer.status == 200, await answer.text()


async def start_fleet(processes: Processes, size: Size) -> list[ChaosReplica]:
    """Start them all, two at a time."""
    fleet = [ChaosReplica(f"replica {n}", processes, size) for n in range(size.replicas)]
    for first in range(0, len(fleet), 2):
        await asyncio.gather(*(replica.start() for replica in fleet[first : first + 2]))
    return fleet
