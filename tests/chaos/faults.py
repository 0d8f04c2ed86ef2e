"""What can be made to go wrong with a replica; small, so that they can be put together."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.chaos.fleet import ChaosReplica


class Fault(Protocol):
    """One fault."""

    @property
    def name(self) -> str:
        """For the log and the report."""

    async def begin(self, replica: ChaosReplica) -> None:
        """Let it befall a replica."""

    async def end(self, replica: ChaosReplica) -> None:
        """Make the replica whole."""


@dataclass(slots=True, frozen=True)
class Kill:
    """SIGKILL; comes back cold."""

    name: str = "SIGKILL"

    async def begin(self, replica: ChaosReplica) -> None:
        await replica.kill()

    async def end(self, replica: ChaosReplica) -> None:
        await replica.restart()


@dataclass(slots=True, frozen=True)
class Stop:
    """SIGSTOP, then SIGCONT."""

    name: str = "SIGSTOP"

    async def begin(self, replica: ChaosReplica) -> None:
        replica.stop()

    async def end(self, replica: ChaosReplica) -> None:
        replica.go_on()


@dataclass(slots=True, frozen=True)
class Own:
    """A fault that the simulated replica has itself.

    Args:
        name: What to call it.
        change: The body of ``POST /faults``.
    """

    name: str
    change: dict[str, Any]

    async def begin(self, replica: ChaosReplica) -> None:
        await replica.faults(self.change)

    async def end(self, replica: ChaosReplica) -> None:
        await replica.faults(None)


OWN_FAULTS: tuple[Own, ...] = (
    Own("half-open: accepts, never answers", {"hang": True}),
    Own("dead engine, healthy face", {"hang": {"health": True}}),
    Own("reset in the midst of a stream", {"cut": {"after_tokens": 9, "how": "rst"}}),
    Own("end between two events", {"cut": {"after_tokens": 9, "how": "fin"}}),
    Own("end within a chunk", {"cut": {"after_tokens": 9, "how": "torn"}}),
    Own("stall in the midst of a stream", {"cut": {"after_tokens": 9, "how": "stall"}}),
    Own("500 to all", {"errors": {"status": 500}}),
    Own("503 to all", {"errors": {"status": 503, "retry_after_s": 1}}),
    Own("429 to all", {"errors": {"status": 429}}),
    Own("five times as slow", {"slow": 5.0}),
    Own("metrics page broken", {"metrics": "error"}),
    Own("metrics page garbage", {"metrics": "garbage"}),
    Own("metrics page frozen", {"metrics": "frozen"}),
    Own("metrics page huge", {"metrics": "huge"}),
    Own("health page broken", {"health": "error"}),
)


@asynccontextmanager
async def befalling(fault: Fault, replicas: Sequence[ChaosReplica]) -> AsyncIterator[None]:
    """Let ``fault`` befall these replicas for the time of the block."""
    await asyncio.gather(*(fault.begin(replica) for replica in replicas))
    try:
        yield
    finally:
        await asyncio.gather(*(fault.end(replica) for replica in replicas))
