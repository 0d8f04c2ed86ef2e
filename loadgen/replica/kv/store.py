"""What a replica keeps of prompts for others to fetch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from loadgen.engine.sequence import Sequence
    from loadgen.replica.driver import EngineDriver


class Shown(NamedTuple):
    """One key, for people and tests."""

    key: str
    tokens: int
    age_s: float
    """Real seconds since its prompt was computed."""
    held: bool
    """Whether somebody fetches it, or is about to."""


class Kept:
    """The blocks of one prompt.

    Args:
        key: Its key.
        sequence: Whose blocks.
        since_s: When it was computed, on the loop's clock.
    """

    __slots__ = ("_gone", "holders", "key", "lease", "sequence", "since_s")

    def __init__(self, key: str, sequence: Sequence, since_s: float) -> None:
        self.key = key
        self.sequence = sequence
        self.since_s = since_s
        self.holders = 0
        self.lease: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def over(self) -> None:
        """Its blocks are free."""
        if not self._gone.done():
            self._gone.set_result(None)

    async def gone(self) -> None:
        """Wait until then; several may, and one that gives up does not make the others do so."""
        await asyncio.shield(self._gone)


class KvStore:
    """Prompts whose blocks stay until they were fetched, or nobody comes for them.

    Args:
        driver: Of the engine whose blocks they are.
        loop: Whose time leases follow.
        lease_s: So long, in real seconds, blocks stay that nobody holds.
    """

    def __init__(
        self, driver: EngineDriver, loop: asyncio.AbstractEventLoop, lease_s: float
    ) -> None:
        self._driver = driver
        self._loop = loop
        self._lease_s = lease_s
        self._kept: dict[str, Kept] = {}
        self._awaited: dict[str, set[asyncio.Future[Kept | None]]] = {}
        self.expired_total = 0
        """Prompts that nobody fetched in time."""

    def shown(self) -> list[Shown]:
        """All keys."""
        now = self._loop.time()
        return [
            Shown(kept.key, kept.sequence.prompt_tokens, now - kept.since_s, kept.holders > 0)
            for kept in self._kept.values()
        ]

    def keep(self, key: str, sequence: Sequence) -> Kept:
        """The prompt of ``sequence`` was computed; its blocks are pinned in the engine."""
        kept = self._kept[key] = Kept(key, sequence, self._loop.time())
        self._begin_lease(kept)
        self._tell(key, kept)
        return kept

    def fail(self, key: str) -> None:
        """The prompt that ``key`` stands for will not come, or not any more."""
        self._tell(key, None)
        self.let_go(key)

    def let_go(self, key: str) -> bool:
        """Free the blocks; False if there are none under that key."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return False
        if kept.lease is not None:
            kept.lease.cancel()
        self._driver.let_go(kept.sequence)
        kept.over()
        return True

    def find(self, key: str) -> Kept | None:
        """What is kept under ``key`` now."""
        return self._kept.get(key)

    async def come(self, key: str) -> Kept | None:
        """What will be kept under ``key``; None if it fails. Waits for as long as that takes."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        waiting: asyncio.Future[Kept | None] = self._loop.create_future()
        awaited = self._awaited.setdefault(key, set())
        awaited.add(waiting)
        try:
            return await waiting
        finally:
            awaited.discard(waiting)
            if not awaited and self._awaited.get(key) is awaited:
                del self._awaited[key]

    def hold(self, kept: Kept) -> None:
        """Somebody is about to fetch it."""
        kept.holders += 1
        if kept.lease is not None:
            kept.lease.cancel()
            kept.lease = None

    def unhold(self, kept: Kept) -> None:
        """Whoever held it has left, with what is kept or without."""
        kept.holders -= 1
        if not kept.holders and self._kept.get(kept.key) is kept:
            self._begin_lease(kept)

    def close(self) -> None:
        """Let go of the timers."""
        for kept in self._kept.values():
            if kept.lease is not None:
                kept.lease.cancel()

    def _begin_lease(self, kept: Kept) -> None:
        kept.lease = self._loop.call_later(self._lease_s, self._expire, kept)

    def _expire(self, kept: Kept) -> None:
        if self._kept.get(kept.key) is kept:
            self.expired_total += 1
            self.let_go(kept.key)

    def _tell(self, key: str, kept: Kept | None) -> None:
        for waiting in self._awaited.pop(key, ()):
            if not waiting.done():
                waiting.set_result(kept)
