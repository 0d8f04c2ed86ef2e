"""A router with its fleet behind it, ready for chaos."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil

from loadgen.trial.processes import Processes
from tests.chaos.fleet import ChaosReplica, Size, start_fleet
from tests.chaos.load import Book, Load, make_book
from tests.chaos.saboteur import Saboteur
from tests.chaos.stream import Ending, connect
from tests.fakes.serve_process import ServeProcess, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

READY_DEADLINE_S = 60.0
LEAK_DEADLINE_S = 15.0
LOOKS = 3
"""At once at one replica at most: at its health, its load and its models."""


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

    def load(self, share: float, seed: int, book: Book | None = None) -> Load:
        """A load that keeps ``share`` of all slots busy, with what stands in ``book``."""
        rate = share * self.size.all_slots / self.book.alone_s
        return Load(self.router.url, book or self.book, rate, seed)

    async def view(self, replica: ChaosReplica) -> dict[str, Any]:
        """What the router thinks of a replica."""
        page = await self.router.fleet()
        return next(r for r in page["replicas"] if r["name"] == replica.address)

    async def busiest(self) -> ChaosReplica:
        """The replica with most streams under way."""
        page = await self.router.fleet()
        name = max(page["replicas"], key=lambda view: view["in_flight"])["name"]
        return next(replica for replica in self.fleet if replica.address == name)

    async def until(self, replica: ChaosReplica, told: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until what the router thinks of a replica is so."""

        async def look() -> bool:
            return told(await self.view(replica))

        async with asyncio.timeout(READY_DEADLINE_S):
            await eventually(look, 0.05)

    async def until_held(self, requests: int) -> None:
        """Wait until so many requests wait in the router."""

        async def look() -> bool:
            held = (await self.router.fleet())["held"].values()
            return sum(why["requests"] for why in held) >= requests

        async with asyncio.timeout(READY_DEADLINE_S):
            await eventually(look, 0.05)

    async def resets(self, count: int, *, at_once: int, seed: int) -> int:
        """Clients that reset their connections at random moments; returns how many did."""
        rng, numbers, left = random.Random(seed), iter(range(count)), 0

        async def lane() -> None:
            nonlocal left
            for _ in numbers:
                asked, wanted = rng.choice(self.book.answers)
                client = await connect(self.router.url, asked, rng.randrange(12))
                async with asyncio.timeout(READY_DEADLINE_S):
                    await client.over
                left += client.outcome(wanted).ending is Ending.LEFT

        await asyncio.gather(*(lane() for _ in range(at_once)))
        return left

    async def descriptors(self) -> tuple[int, int]:
        """File descriptors of the router: its connections to replicas that are neither idle nor
        ones of its looks at them, and all others."""
        idle = (await self.router.fleet())["connections"]["upstream_idle"]
        process = psutil.Process(self.router.pid)
        ports = {int(replica.address.rpartition(":")[2]) for replica in self.fleet}
        remotes = [connection.raddr for connection in process.net_connections("tcp")]
        upstream = sum(bool(remote) and remote.port in ports for remote in remotes)
        looks = LOOKS * len(self.fleet)
        return max(upstream - idle - looks, 0), process.num_fds() - upstream

    async def nothing_leaked(self, descriptors: tuple[int, int]) -> None:
        """Wait until the router holds nothing of any request, no replica works for anybody, and
        there are no more file descriptors than ``descriptors``."""
        await self.router.drained()
        left: dict[str, Any] = {}

        async def look() -> bool:
            left["working"] = [await replica.working_on() for replica in self.fleet]
            pairs = zip(await self.descriptors(), descriptors, strict=True)
            left["descriptors"] = [max(now - before, 0) for now, before in pairs]
            return not any(left["working"]) and not any(left["descriptors"])

        try:
            async with asyncio.timeout(LEAK_DEADLINE_S):
                await eventually(look, 0.05)
        except TimeoutError:
            raise AssertionError(f"leaked: {left}") from None

    async def all_ready(self) -> None:
        """Wait until every replica is in full service."""
        for replica in self.fleet:
            await self.until(replica, lambda view: view["ready"])

    async def metric(self, line: str) -> float:
        """The sum of all samples whose line starts with ``line``."""
        page = await self.router.metrics()
        found = [text for text in page.splitlines() if text.startswith(line)]
        return sum(float(text.rpartition(" ")[2]) for text in found)

    async def recovery_figures(self) -> dict[str, Any]:
        """What the router did about failures since it started."""
        requests = await self.metric("pointsman_requests_arrived_total")
        attempts = await self.metric("pointsman_attempts_total")
        return {
            "continued": await self.metric('pointsman_continuations_total{outcome="continued"}'),
            "not_continued": await self.metric("pointsman_not_continued_total{"),
            "retries": await self.metric("pointsman_retries_total"),
            "attempts_per_request": round(attempts / max(requests, 1.0), 3),
        }


@asynccontextmanager
async def staged(
    size: Size,
    folder: Path,
    *,
    tokens: int = 60,
    prompts: int = 24,
    wired: int = 0,
    **config: Any,
) -> AsyncIterator[Stage]:
    """Set a stage; on leaving it nothing is left in the router, and all processes are gone.

    Args:
        size: Of the fleet.
        folder: For the configuration.
        tokens: Length of each answer.
        prompts: Different requests.
        wired: So many replicas have a saboteur before them.
        config: Of the router.
    """
    async with Processes() as processes:
        fleet = await start_fleet(processes, size)
        try:
            book = await make_book([replica.url for replica in fleet], prompts, tokens)
            for replica in fleet[:wired]:
                replica.saboteur = Saboteur()
                await replica.saboteur.start(replica.url)
            replicas = [{"url": replica.routed_url, "engine": "vllm"} for replica in fleet]
            router = ServeProcess({"replicas": replicas, **config}, folder)
            await router.start()
            stage = Stage(fleet, router, book, size)
            await stage.all_ready()
            yield stage
            await router.stop()
        finally:
            for replica in fleet:
                replica.go_on()  # what is stopped could not end
                if replica.saboteur is not None:
                    await replica.saboteur.stop()
