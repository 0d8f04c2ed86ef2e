"""The simulated replica itself, apart from its HTTP surface."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loadgen.engine.engine import Engine
from loadgen.replica.clock import VirtualClock
from loadgen.replica.driver import EngineDriver
from loadgen.replica.faults import Change, CutFault, Faults
from loadgen.replica.kv.fetch import Fetches
from loadgen.replica.kv.store import KvStore
from loadgen.replica.refusal import Refusal
from loadgen.replica.statistics import Statistics

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from loadgen.engine.sequence import State
    from loadgen.replica.job import Job
    from loadgen.replica.settings import ReplicaSettings


class SimulatedReplica:
    """Engine, clock, counters and faults of one replica.

    Args:
        settings: What it is.
        loop: Whose time it follows.
        crash: Ends the process at once, for the fault of that name.

    Raises:
        ValueError: A size in the settings makes no sense.
    """

    def __init__(
        self,
        settings: ReplicaSettings,
        loop: asyncio.AbstractEventLoop,
        crash: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.statistics = Statistics()
        self.faults = Faults()
        self.chance = random.Random(settings.seed)
        self.engine = Engine(
            settings.profile,
            kv_tokens=settings.kv_tokens,
            max_batched_tokens=settings.max_batched_tokens,
            max_sequences=settings.max_sequences,
        )
        self.max_model_tokens = min(
            settings.max_model_tokens or settings.profile.max_model_tokens, self.engine.kv_tokens
        )
        self.driver = EngineDriver(
            self.engine, VirtualClock(loop.time, settings.speed), self.statistics, loop
        )
        self.kept = KvStore(self.driver, loop, settings.kv_lease_s)
        """What others may fetch."""
        self.fetches = Fetches(
            self.driver,
            loop,
            settings.link_gbps * 1e9 / 8,
            settings.profile.kv_bytes_per_token,
        )
        """What it fetches from others."""
        self.jobs: set[Job] = set()
        """Requests in the engine."""
        self.created = 1_700_000_000
        """When its models say that they were made: a constant, for there is no such time."""
        self.started_s = datetime.now(tz=UTC).timestamp()
        """Wall clock at the start."""
        self._crash = crash
        self._loop = loop
        self._loaded_s = loop.time() + settings.load_s

    @property
    def loaded(self) -> bool:
        """Whether the model is loaded."""
        return self._loop.time() >= self._loaded_s

    def load_now(self) -> None:
        """The model is loaded, however long that should have taken."""
        self._loaded_s = self._loop.time()

    def loop_time(self) -> float:
        """Real time, as the loop counts it."""
        return self._loop.time()

    def adapters(self, *states: State) -> list[str]:
        """The adapters of the sequences in ``states``, sorted."""
        return sorted(
            {
                job.model
                for job in self.jobs
                if job.model in self.settings.adapters
                and any(choice.sequence.state in states for choice in job.choices)
            }
        )

    def find_model(self, name: str | None, *, strict: bool) -> str:
        """The model or adapter that a request names; the first one when it names none.

        Raises:
            Refusal: There is no such model, and it matters (``strict``).
        """
        names = (*self.settings.model_names, *self.settings.adapters)
        if name is None or name in names:
            return name or names[0]
        if strict:
            raise Refusal(
                404, f"The model `{name}` does not exist.", "NotFoundError", param="model"
            )
        return names[0]

    def language(self, model: str) -> str:
        """Whose language ``model`` speaks: all names of the base model mean the same one."""
        return model if model in self.settings.adapters else self.settings.profile.model

    def change_faults(self, change: Change) -> None:
        """Set faults, in the engine too."""
        if change.crash is True:
            self._crash()
        hung = self.faults.hang is not None
        self.faults.apply(change)
        if self.faults.slow != self.engine.slowdown:
            self.driver.set_slowdown(self.faults.slow)
        if (self.faults.hang is not None) != hung:
            if hung:
                self.driver.resume()
            else:
                self.driver.pause()

    def draw_cut(self) -> CutFault | None:
        """Whether, and how, the next stream breaks."""
        cut = self.faults.cut
        return cut if cut is not None and self.chance.random() < cut.share else None

    def fail_all(self) -> None:
        """The engine has died under all its requests."""
        for job in tuple(self.jobs):
            job.fail(
                Refusal(
                    500,
                    "EngineCore encountered an issue. See stack trace (above) for the root cause.",
                    "InternalServerError",
                )
            )
