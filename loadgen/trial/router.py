"""The router of a trial, as its users start it: ``pointsman serve``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from loadgen.trial.errors import TrialError
from router.config.structs import Config, PolicyConfig, PollingConfig, ReplicaConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.trial.processes import Processes

READY_DEADLINE_S = 30.0
_LOOK_S = 0.05
_STREAMS = "pointsman_continuations_total"
_REQUESTS = "pointsman_continuation_requests_total"
_WHOLE = ("continued", "ended")
"""What became of broken streams whose clients got all of their answer."""


class ReplicaState(msgspec.Struct):
    """What the admin plane's ``/fleet`` says of a replica, as far as a trial wants to know."""

    name: str
    ready: bool
    dispatched_total: int
    failed_total: int


class _Fleet(msgspec.Struct):
    replicas: list[ReplicaState]


@dataclass(slots=True, frozen=True, kw_only=True)
class Continued:
    """Streams that broke, and what was done about it."""

    streams: int
    """Of how many the client got all the same all of its answer."""

    requests: int
    """How many requests it took."""


@dataclass(slots=True, frozen=True)
class Router:
    """A running router."""

    url: str
    """Where clients connect."""

    admin_url: str

    @classmethod
    async def start(
        cls, processes: Processes, policy: str, replica_urls: Sequence[str], speed: float
    ) -> Self:
        """Start it and wait until it holds every replica for ready.

        Args:
            processes: Starts and ends it.
            policy: As ``--policy`` takes it.
            replica_urls: The fleet.
            speed: Seconds of the simulated engines in a real one.

        Raises:
            TrialError: It ends, or takes too long.
        """
        config = msgspec.json.encode(router_config(policy, replica_urls, speed))
        process = await processes.start(
            f"router with {policy}", ["serve", "--config", "/dev/stdin"], stdin=config
        )
        url = await process.told("pointsman: listening on ")
        router = cls(url, await process.told("pointsman: admin on "))
        await router._until_ready()
        return router

    async def fleet(self) -> list[ReplicaState]:
        """What it knows of its replicas now.

        Raises:
            TrialError: It does not answer.
        """
        page = await self._page("/fleet")
        try:
            return msgspec.json.decode(page, type=_Fleet).replicas
        except msgspec.DecodeError as error:
            msg = f"the router's {self.admin_url}/fleet cannot be read: {error!r}"
            raise TrialError(msg) from error

    async def continued(self) -> Continued:
        """What it has done so far about streams that broke.

        Raises:
            TrialError: It does not answer.
        """
        page = (await self._page("/metrics")).decode()
        counts: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                name = "/".join((sample.name, *sample.labels.values()))
                counts[name] = counts.get(name, 0.0) + sample.value
        requests = [v for name, v in counts.items() if name.startswith(f"{_REQUESTS}/")]
        streams = sum(counts.get(f"{_STREAMS}/{outcome}", 0.0) for outcome in _WHOLE)
        return Continued(streams=int(streams), requests=int(sum(requests)))

    async def _page(self, path: str) -> bytes:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"{self.admin_url}{path}") as response,
            ):
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            msg = f"the router's {self.admin_url}{path} cannot be read: {error!r}"
            raise TrialError(msg) from error

    async def _until_ready(self) -> None:
        missing = ["all"]
        try:
            async with asyncio.timeout(READY_DEADLINE_S):
                while missing:
                    missing = [replica.name for replica in await self.fleet() if not replica.ready]
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            msg = f"not ready after {READY_DEADLINE_S:g} s: {', '.join(missing)}"
            raise TrialError(msg) from None


def router_config(policy: str, replica_urls: Sequence[str], speed: float) -> Config:
    """The configuration of the router: defaults, but at the pace of the fleet.

    Samples of the replicas must be as old, in seconds of the engines, as they would be if those
    ran at their own speed; else a policy that uses them would be judged on stale ones.
    """
    polling = PollingConfig()
    return Config(
        listen=["127.0.0.1:0"],
        admin="127.0.0.1:0",
        policy=PolicyConfig(name=policy),
        replicas=[ReplicaConfig(url=url) for url in replica_urls],
        polling=msgspec.structs.replace(
            polling,
            interval_s=polling.interval_s / speed,
            sample_lifetime_s=polling.sample_lifetime_s / speed,
            max_per_s=ceil(polling.max_per_s * speed),
        ),
        log_level="warning",
    )
