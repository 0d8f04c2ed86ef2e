"""One replica under watch: two loops, and what comes of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.polling.connection import Blame, LookFailedError
from router.polling.health import Health
from router.polling.load import Load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from router.core.replica import Replica
    from router.core.sample import Sample
    from router.engines.base import Dialect
    from router.polling.client import ReplicaClient
    from router.polling.generation import Generation
    from router.polling.sink import Sink

log = logging.getLogger("pointsman.polling")


@dataclass(slots=True)
class Counters:
    """What all watches did since the start."""

    looks: int = 0
    """Looks at load and health together."""

    load_failures: int = 0
    """Looks at a load that brought none."""

    errors: int = 0
    """Looks that ended in an unforeseen exception; each is a bug, in us or in the sink."""


@dataclass(slots=True, frozen=True)
class Pace:
    """Time, as a watch sees it; functions, so that a test can stand in for the clock."""

    clock: Callable[[], float]
    """Monotonic seconds."""

    sleep: Callable[[float], Awaitable[object]]
    """Wait so many seconds."""

    interval_s: Callable[[], float]
    """How long to wait now before the next look, jitter included."""

    models_interval_s: Callable[[], float]
    """How long a list of models is good for."""

    stagger_s: Callable[[], float]
    """How long to wait now before the very first look."""

    phase: Callable[[], float]
    """The share of the first pause to wait now, so that the looks at a fleet that was started
    all at once do not come in volleys, each of which would stall the streams."""


class Watch:
    """The watch over one replica.

    Load and health have a loop each, because SGLang's ``/health`` takes a second or more: it
    generates a token. Each loop waits for its own look, so looks never overlap.

    Args:
        replica: Whom to watch.
        dialect: Its engine; None: to be found out.
        client: How to reach it; opened and closed by :meth:`run`.
        sink: Who is told.
        pace: When to look.
        counters: Where to count.
        health_path: Where its health is asked for; that of its engine when left out.
        generation: Whether it makes tokens; not asked when left out.
    """

    def __init__(
        self,
        replica: Replica,
        dialect: Dialect | None,
        client: ReplicaClient,
        *,
        sink: Sink,
        pace: Pace,
        counters: Counters,
        health_path: str = "",
        generation: Generation | None = None,
    ) -> None:
        self.replica = replica
        self._client = client
        self._sink = sink
        self._pace = pace
        self._counters = counters
        self._load = Load(client, dialect)
        self._health = Health(client, health_path)
        self._generation = generation
        self._ready: bool | None = None
        self._load_failure: str | None = None
        self._engine_told: str | None = None
        self._error_told = ""
        self._gaps_told: set[str] = set()

    @property
    def engine(self) -> str:
        """The name of the replica's engine, as far as it is known."""
        return self._load.dialect.name

    async def run(self) -> None:
        """Watch until cancelled."""
        async with self._client, asyncio.TaskGroup() as loops:
            name = self.replica.name
            health = self._loop(self.look_at_health, lambda: 0.0)
            loops.create_task(health, name=f"health of {name}")
            if self._load.dialect.metrics_paths or not self._load.known:
                load = self._loop(self.look_at_load, lambda: self._load.pause_s)
                loops.create_task(load, name=f"load of {name}")

    async def look_at_health(self) -> None:
        """One look at the health and, when due, at the models."""
        health = self._health
        was_alive = health.alive
        await health.look(self._load.dialect)
        if health.alive:
            await health.list_models(self._pace.clock(), self._pace.models_interval_s())
        if health.models is not None:
            self._sink.models_seen(self.replica, health.models.keys(), health.models)
        if was_alive and not health.alive:
            self._load.forget()
        if self._generation is not None:
            await self._look_at_generation(self._generation)
        self._report_health()

    async def look_at_load(self) -> None:
        """One look at the load."""
        if self._health.down:
            return  # it gets no requests; and while it loads it may look like another engine
        unfit = self._load.unfit
        self._sink.look_began(self.replica)
        try:
            sample = await self._load.look()
        except LookFailedError as failure:
            self._counters.load_failures += 1
            self._sink.sample_failed(self.replica, str(failure))
            if failure.blame is not Blame.REFUSED:
                self._tell_failure(str(failure))
        else:
            self._tell_engine()
            if sample is not None:
                self._sink.sampled(self.replica, sample, self._pace.clock())
                self._tell_gaps(sample)
            self._tell_failure(None)
        if self._load.unfit != unfit and self._ready is not None:
            self._report_health()

    async def _look_at_generation(self, generation: Generation) -> None:
        models = self._health.models
        if self._health.down:
            generation.forget()
        elif models is not None:
            model = next(iter(models), None)
            await generation.look(model, self._pace.clock(), busy=self.replica.in_flight > 0)

    async def _loop(
        self, look: Callable[[], Awaitable[None]], pause_s: Callable[[], float]
    ) -> None:
        pace = self._pace
        share = pace.phase()
        await pace.sleep(pace.stagger_s())
        while True:
            self._counters.looks += 1
            try:
                await look()
            except Exception as error:  # noqa: BLE001 - logged and counted; a watch never ends
                self._counters.errors += 1
                self._tell_error(error)
            await pace.sleep(share * max(pace.interval_s(), pause_s()))
            share = 1.0

    def _report_health(self) -> None:
        health = self._health
        reason = health.reason
        if not health.alive:
            ready = False
        elif self._load.unfit is not None:
            ready, reason = False, self._load.unfit
        elif health.models is None:
            ready, reason = False, health.models_reason
        elif self._generation is not None and self._generation.failure is not None:
            ready, reason = False, self._generation.failure
        else:
            ready = True
        self._sink.health_seen(self.replica, healthy=ready, reason=reason)
        if ready == self._ready:
            return
        if ready:
            log.info("%s is ready: %s", self.replica.name, _named(health.models))
        else:
            level = logging.INFO if self._ready is None else logging.WARNING
            log.log(level, "%s is not ready: %s", self.replica.name, reason)
        self._ready = ready

    def _tell_error(self, error: Exception) -> None:
        """Log an unforeseen error, with its traceback; the same one again only after another."""
        if repr(error) != self._error_told:
            self._error_told = repr(error)
            log.error("watching %s: unforeseen error, going on", self.replica.name, exc_info=error)

    def _tell_failure(self, reason: str | None) -> None:
        """Log that the metrics broke, or that they are back."""
        before, self._load_failure = self._load_failure, reason
        if reason is not None and before is None:
            log.warning("%s: no metrics, routing on own bookkeeping: %s", self.replica.name, reason)
        elif reason is None and before is not None:
            log.info("%s: metrics are back", self.replica.name)

    def _tell_engine(self) -> None:
        if self.engine != self._engine_told:
            self._engine_told = self.engine
            self._sink.engine_seen(self.replica, self.engine)
            log.info("%s: engine %s", self.replica.name, self.engine)

    def _tell_gaps(self, sample: Sample) -> None:
        for gap in self._load.dialect.gaps(sample):
            if gap not in self._gaps_told:
                self._gaps_told.add(gap)
                log.warning(
                    "%s: its metrics are incomplete, policies do without: %s",
                    self.replica.name,
                    gap,
                )


def _named(models: Mapping[str, bytes] | None) -> str:
    return ", ".join(sorted(models)) if models else "it lists no models and gets any request"
