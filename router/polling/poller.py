"""The poller: a watch over each replica of the fleet."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING, Final

from router.engines.catalogue import by_name
from router.polling.client import ReplicaClient
from router.polling.generation import Generation
from router.polling.watch import Counters, Pace, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from router.config.structs import PollingConfig
    from router.core.replica import Replica
    from router.polling.sink import Sink

log = logging.getLogger("pointsman.polling")

JITTER: Final = 0.1
"""Each pause is longer or shorter by up to this share, so that looks do not fall into step."""

LOOKS_PER_MODELS: Final = 8
"""Looks at the health for one at the list of models."""

MODELS_INTERVAL_S: Final = 2.0
"""A list of models is good for at least this long; a new LoRA adapter is seen by then."""


class Poller:
    """Watches replicas and tells a sink what it sees.

    Args:
        config: How often, and how patiently.
        sink: Who is told; the dispatcher, or a wrapper that performs its actions.
        clock: Monotonic seconds; the event loop's own time when left out.
        sleep: What waits between looks.
        rng: Source of the jitter.
    """

    def __init__(
        self,
        config: PollingConfig,
        sink: Sink,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: Random | None = None,
    ) -> None:
        self._config = config
        self._sink = sink
        self._rng = rng or Random()
        self._watches: dict[Replica, Watch] = {}
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._running = False
        self._stretch_told = False
        self.counters = Counters()
        self._pace = Pace(
            clock=clock or _loop_time,
            sleep=sleep,
            interval_s=self._jittered,
            models_interval_s=self._models_interval_s,
            stagger_s=self._stagger_s,
            phase=self._rng.random,
        )

    @property
    def interval_s(self) -> float:
        """Time between two looks at a replica, jitter left out.

        Longer than configured when the fleet would otherwise be looked at more than
        ``max_per_s`` times a second: each interval has a look at the load and one at the health,
        and every eighth one at the models.
        """
        looks = len(self._watches) * (2 + 1 / LOOKS_PER_MODELS)
        return max(self._config.interval_s, looks / self._config.max_per_s)

    def watch(self, replica: Replica, engine: str = "auto", *, health_path: str = "") -> None:
        """Begin to watch ``replica``; before :meth:`start`, once that is called.

        Args:
            replica: Whom.
            engine: Its engine; auto: to be found out.
            health_path: Where its health is asked for; that of its engine when left out.

        Raises:
            ValueError: There is no such engine, the URL is none of a replica, or it is watched
                already.
        """
        if replica in self._watches:
            msg = f"{replica.name} is watched already"
            raise ValueError(msg)
        config = self._config
        client = ReplicaClient(replica.url, timeout_s=config.timeout_s)
        generation = None
        if config.generation_s > 0:
            generation = Generation(client, config.generation_s, config.generation_timeout_s)
        self._watches[replica] = Watch(
            replica,
            by_name(engine),
            client,
            sink=self._sink,
            pace=self._pace,
            counters=self.counters,
            health_path=health_path,
            generation=generation,
        )
        if self._running:
            self._begin(replica)

    def forget(self, replica: Replica) -> None:
        """Stop watching ``replica``; the sink hears no more of it.

        Raises:
            KeyError: It is not watched.
        """
        del self._watches[replica]
        if (task := self._tasks.pop(replica, None)) is not None:
            self._end(task)

    def engine(self, replica: Replica) -> str:
        """The name of the engine of ``replica``; ``generic`` as long as none was recognised.

        Raises:
            KeyError: It is not watched.
        """
        return self._watches[replica].engine

    async def start(self) -> None:
        """Begin to watch; returns at once."""
        self._running = True
        for replica in list(self._watches):
            self._begin(replica)

    async def aclose(self) -> None:
        """Stop watching; returns when every connection is closed and every task has ended."""
        self._running = False
        self._watches.clear()
        while self._tasks:
            self._end(self._tasks.popitem()[1])
        if self._ending:
            await asyncio.wait(self._ending)

    def _begin(self, replica: Replica) -> None:
        self._tell_stretch()
        watching = self._watches[replica].run()
        task = asyncio.create_task(watching, name=f"watch {replica.name}")
        task.add_done_callback(self._tell_end)
        self._tasks[replica] = task

    def _tell_stretch(self) -> None:
        """Warn once when samples grow too old to be believed before the next one comes."""
        config = self._config
        if self._stretch_told or self.interval_s <= config.sample_lifetime_s:
            return
        self._stretch_told = True
        log.warning(
            "at polling.max_per_s %d each of %d replicas is looked at every %.1f s, but a sample is"
            " believed for polling.sample_lifetime_s %g only: raise either",
            config.max_per_s,
            len(self._watches),
            self.interval_s,
            config.sample_lifetime_s,
        )

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        """A watch ends when it is told to; any other end is a bug and must not go unseen."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counters.errors += 1
            log.critical("%s ended by an unforeseen error", task.get_name(), exc_info=error)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _jittered(self) -> float:
        return self.interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _models_interval_s(self) -> float:
        return max(MODELS_INTERVAL_S, LOOKS_PER_MODELS * self.interval_s)

    def _stagger_s(self) -> float:
        """At random within what the interval was stretched by; 0 in a fleet of the usual size."""
        return self._rng.random() * (self.interval_s - self._config.interval_s)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
