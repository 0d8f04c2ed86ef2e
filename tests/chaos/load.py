"""A load of streams that goes on while things break, and its figures."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos.stream import CHAT, COMPLETIONS, Ask, Ending, Outcome, Told, ask, connect, unbroken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

GIVEN_UP_S = 90.0
"""A stream that has not ended by then is broken: nothing here lasts so long."""
AT_ONCE = 8


@dataclass(slots=True)
class Book:
    """Requests with the answers to them, from direct runs."""

    answers: list[tuple[Ask, Told]]
    alone_s: float
    """How long an answer takes that nobody disturbs."""


async def make_book(urls: Sequence[str], count: int, tokens: int) -> Book:
    """Ask replicas themselves for the answers, before anything breaks."""
    clock, spans = asyncio.get_running_loop().time, []
    asks = [ask(n, tokens, path=COMPLETIONS if n % 2 else CHAT) for n in range(count)]
    told: list[Told | None] = [None] * count

    async def run(lane: int) -> None:
        for number in range(lane, count, AT_ONCE):
            began_s = clock()
            told[number] = await unbroken(urls[number % len(urls)], asks[number])
            spans.append(clock() - began_s)

    await asyncio.gather(*(run(lane) for lane in range(AT_ONCE)))
    return Book(list(zip(asks, told, strict=True)), sum(spans) / len(spans))


@dataclass(slots=True)
class Run:
    """What became of a load."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, ending: Ending) -> int:
        """How many ended so."""
        return sum(outcome.ending is ending for outcome in self.outcomes)

    def bad(self) -> list[Outcome]:
        """Those that no client should see: altered and broken ones."""
        return [o for o in self.outcomes if o.ending in {Ending.ALTERED, Ending.BROKEN}]

    def figures(self) -> dict[str, Any]:
        """For the report."""
        gaps = [o.longest_gap_s for o in self.outcomes if o.ending is Ending.EQUAL]
        ttfts = [o.ttft_s for o in self.outcomes if o.ttft_s is not None]
        return {
            "requests": len(self.outcomes),
            **{str(key): n for key, n in Counter(o.ending for o in self.outcomes).items()},
            "longest_gap_s": round(max(gaps, default=0.0), 3),
            "ttft_p50_s": quantile(ttfts, 0.5),
            "ttft_p99_s": quantile(ttfts, 0.99),
        }


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that ``share`` of them do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)


class Load:
    """An open-loop load: requests arrive whatever becomes of those before.

    Args:
        url: The router.
        book: What is asked, and what is to be told.
        rate: Requests a second, on average.
        seed: Of the times between them, and of which.
    """

    def __init__(self, url: str, book: Book, rate: float, seed: int) -> None:
        self.run = Run()
        self._url = url
        self._book = book
        self._rate = rate
        self._rng = random.Random(seed)
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def going(self) -> AsyncIterator[Run]:
        """Go on for the time of the block; then wait for what is open."""
        arriving = asyncio.create_task(self._arrive())
        try:
            yield self.run
        finally:
            arriving.cancel()
            await asyncio.wait({arriving})
            await asyncio.gather(*self._open)

    async def _arrive(self) -> None:
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while True:
            due_s += self._rng.expovariate(self._rate)
            await asyncio.sleep(due_s - clock())
            task = asyncio.create_task(self._one(*self._rng.choice(self._book.answers)))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self, asked: Ask, wanted: Told) -> None:
        client = await connect(self._url, asked)
        done, _ = await asyncio.wait({client.over}, timeout=GIVEN_UP_S)
        if not done:
            client.abandon()
        self.run.outcomes.append(client.outcome(wanted))
