"""How a replica brings KV from another one, over a link that its transfers share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp

from loadgen.engine.links import Links
from loadgen.replica.refusal import Refusal
from policies.transfer import LATENCY_S

if TYPE_CHECKING:
    from loadgen.engine.links import Flow
    from loadgen.replica.driver import EngineDriver
    from loadgen.replica.job import Job
    from loadgen.replica.kv.part import Part

LOST: Final = "The KV cache of the prompt could not be loaded."


class Fetches:
    """All transfers to one replica.

    Args:
        driver: Of the engine that they are for.
        loop: Whose time it is.
        bytes_per_s: How fast the link is, in virtual time.
        kv_bytes_per_token: Size of what is brought.
    """

    def __init__(
        self,
        driver: EngineDriver,
        loop: asyncio.AbstractEventLoop,
        bytes_per_s: float,
        kv_bytes_per_token: float,
    ) -> None:
        self._driver = driver
        self._loop = loop
        self._links = Links(bytes_per_s, LATENCY_S)
        self._kv_bytes_per_token = kv_bytes_per_token
        self._timer: asyncio.TimerHandle | None = None
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """End all transfers."""
        if self._timer is not None:
            self._timer.cancel()
        if self._session is not None:
            await self._session.close()

    async def bring(self, job: Job, part: Part) -> None:
        """Bring the KV of a decode leg, from when it is asked for to when it is there.

        The other side is told when it may let go, be it that nobody needs it any more.
        """
        session = self._session
        if session is None:
            connector = aiohttp.TCPConnector(limit=0)
            session = self._session = aiohttp.ClientSession(
                connector=connector, timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0)
            )
        url = f"{part.source}/kv/{part.key}"
        params = {"engine_id": part.engine_id} if part.engine_id else None
        try:
            async with session.get(url, params=params) as held:
                if held.status != 200:
                    job.fail(Refusal(500, LOST, "InternalServerError"))
                    return
                try:
                    await self._transfer(job, part.source)
                finally:
                    # Even of a request that was dropped: nobody else will come for it.
                    await asyncio.shield(self._let_go(session, url))
        except aiohttp.ClientError:
            job.fail(Refusal(500, LOST, "InternalServerError"))

    async def _transfer(self, job: Job, source: str) -> None:
        sequence = job.choices[0].sequence
        await job.room
        arrived: asyncio.Future[None] = self._loop.create_future()
        tokens = sequence.prompt_tokens - sequence.cached_tokens
        size_bytes = tokens * self._kv_bytes_per_token
        now = self._driver.clock.now_s()
        flow = self._links.begin(source, self, size_bytes, now, arrived)
        self._arm()
        try:
            await arrived
        finally:
            self._end(flow)
        self._driver.kv_arrived(sequence)

    async def _let_go(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            async with session.delete(url):
                pass
        except aiohttp.ClientError:
            return  # who kept it is gone, and what it kept with it

    def _end(self, flow: Flow) -> None:
        self._links.cancel(flow, max(self._driver.clock.now_s(), self._links.now_s))
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._links.next_end_s()
        if due_s is not None:
            self._timer = self._loop.call_at(self._driver.clock.loop_s(due_s), self._due, due_s)

    def _due(self, due_s: float) -> None:
        self._timer = None
        for flow in self._links.advance(max(self._driver.clock.now_s(), due_s)):
            arrived = flow.driver
            if isinstance(arrived, asyncio.Future) and not arrived.done():
                arrived.set_result(None)
        self._arm()
