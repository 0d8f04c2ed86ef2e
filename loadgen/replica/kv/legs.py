"""One leg of a split request, beside its job in the engine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from loadgen.engine.sequence import Leg, State
from loadgen.replica.kv.dialects import add_params, keeps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from loadgen.replica.job import Job
    from loadgen.replica.simulated import SimulatedReplica


class TakingPart:
    """What a leg does besides computing.

    Args:
        replica: Who serves it.
        job: Its work.
    """

    def __init__(self, replica: SimulatedReplica, job: Job) -> None:
        self._replica = replica
        self.job = job
        self.keeps = False
        """Whether the KV of its prompt is kept for others."""

    async def computed(self) -> None:
        """The answer is whole; of a prefill leg, its KV can be fetched from now on."""
        job = self.job
        sequence = job.choices[0].sequence
        if job.part.leg is not Leg.PREFILL or sequence.state is not State.FINISHED:
            return
        if keeps(self._replica.settings, job):
            kept = self._replica.kept.keep(job.part.key, sequence)
            if job.part.waits:
                await kept.gone()
            self.keeps = True

    def tell(self, answer: dict[str, object], own_url: str) -> None:
        """Add to an answer how the KV is fetched."""
        if self.job.part.leg is Leg.PREFILL:
            add_params(self._replica.settings, self.job, self.job.part, own_url, answer)


@asynccontextmanager
async def taking_part(replica: SimulatedReplica, job: Job) -> AsyncIterator[TakingPart]:
    """As long as a leg lasts: what it needs comes, and what nobody needs is let go of."""
    leg, part = TakingPart(replica, job), job.part
    fetching = None
    if part.leg is Leg.DECODE:
        fetching = asyncio.create_task(replica.fetches.bring(job, part))
    try:
        yield leg
    finally:
        if fetching is not None:
            fetching.cancel()
        if part.leg is Leg.PREFILL and not leg.keeps:
            replica.kept.fail(part.key)
            replica.driver.let_go(job.choices[0].sequence)
