"""A router with its fleet behind it, ready for chaos."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from loadgen.trial.processes import Processes
from tests.chaos.fleet import ChaosReplica, Size, start_fleet
from tests.chaos.load import Book, Load, make_book
from tests.fakes.serve_process import ServeProcess, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

READY_DEADLINE_S = 60.0
PROMPTS = 24
TOKENS = 60


class Stage:
    """What a scenario plays on.

    Args:
        fleet: The replicas.
        router: The router before them.
        book: What clients ask.
        size: How large the replicas are.
    """

    def __init__(
        self, fleet: list[ChaosReplica], router: ServeProcess, book: Book, size: Size
    ) -> None:
        self.fleet = fleet
        self.router = router
        self.book = book
        self.size = size

    def load(self, share: float, seed: int) -> Load:
        """A load that keeps ``share`` of all slots busy."""
        rate = share * self.size.all_slots / self.book.alone_s
        return Load(self.router.url, self.book, rate, seed)

    async def view(self, replica: ChaosReplica) -> dict[str, Any]:
        """What the router thinks of a replica."""
        page = await self.router.fleet()
        return next(r for r in page["replicas"] if r["name"] == replica.address)

    async def until(self, replica: ChaosReplica, told: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until what the router thinks of a replica is so."""

        async def look() -> bool:
            return told(await self.view(replica))

        async with asyncio.timeout(READY_DEADLINE_S):
            await eventually(look, 0.05)

    async def all_ready(self) -> None:
        """Wait until every replica is in full service."""
        for replica in self.fleet:
            await self.until(replica, lambda view: view["ready"])

    async def metric(self, line: str) -> float:
        """The sum of all samples whose line starts with ``line``."""
        page = await self.router.metrics()
        found = [text for text in page.splitlines() if text.startswith(line)]
        return sum(float(text.rpartition(" ")[2]) for text in found)


@asynccontextmanager
async def staged(size: Size, folder: Path, **config: Any) -> AsyncIterator[Stage]:
    """Set a stage; on leaving it nothing is left in the router, and all processes are gone."""
    async with Processes() as processes:
        fleet = await start_fleet(processes, size)
        try:
            book = await make_book([replica.url for replica in fleet], PROMPTS, TOKENS)
            replicas = [{"url": replica.url, "engine": "vllm"} for replica in fleet]
            router = ServeProcess({"replicas": replicas, **config}, folder)
            await router.start()
            stage = Stage(fleet, router, book, size)
            await stage.all_ready()
            yield stage
            await router.stop()
        finally:
            for replica in fleet:
                replica.go_on()  # what is stopped could not end
