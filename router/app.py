"""The whole router, put together: the one place where every part meets the others."""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING

from policies import registry
from policies.base import Role
from router.addresses import parse_address
from router.admin.server import AdminServer
from router.api.objectives import read_objective
from router.core.decisions import Decisions
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.fleet_health import FleetHealth
from router.core.health import Health
from router.kv_events.feed import KvEventFeed
from router.listeners import Listeners, url_of
from router.polling.introductions import Introductions
from router.polling.poller import Poller
from router.polling.warm_up import WarmUp
from router.proxy.plane import DataPlane
from router.settings import (
    chosen_policy,
    dispatcher_limits,
    health_settings,
    hold_limits,
    part_in_splits,
)
from router.telemetry.advisor import Advisor
from router.telemetry.lag import LoopLag
from router.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping

    from router.config.structs import Config
    from router.core.actions import Actions
    from router.core.replica import Replica
    from router.core.sample import Sample
    from router.telemetry.status import Traffic


class App:
    """A router built from one configuration; also what the admin plane shows of it.

    Args:
        config: What to build.
        loop: The event loop that it will run on.

    Raises:
        PolicyError: There is no such policy, or its options are wrong.
    """

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        chosen = chosen_policy(config)
        policy = registry.load(chosen.name, chosen.options)
        self._config = config
        self._open = AsyncExitStack()
        self.now = loop.time
        self.started_s = loop.time()
        self.policy_name = chosen.name
        self.telemetry = Telemetry(loop.time)
        self.fleet = FleetState(
            sample_lifetime_s=config.polling.sample_lifetime_s,
            health=FleetHealth(health_settings(config), Random()),
        )
        self.dispatcher = Dispatcher(
            self.fleet,
            policy,
            Random(config.seed),
            self.telemetry,
            dispatcher_limits(config),
            hold=hold_limits(config),
            decisions=Decisions(),
        )
        self.plane = DataPlane(config, self.dispatcher, Random(), loop)
        self._listeners = Listeners(loop, self.plane.protocol)
        self.warm_up = WarmUp(self.plane.hot, self.dispatcher.prefix_index)
        self._introductions = self._make_introductions()
        events = FleetEvents(self.dispatcher, self.plane, self.warm_up, self._introductions)
        self._poller = Poller(config.polling, events)
        self.kv_events = KvEventFeed(self.dispatcher.prefix_index)
        self._admin = AdminServer(self)
        self._lag = LoopLag(loop, self.telemetry.loop_lag_s)
        self._advisor = Advisor(loop, self.dispatcher, read_objective(config.slo.default).tpot_s)
        for replica in config.replicas:
            joined = self.fleet.add(replica.full_name, replica.url)
            joined.zone = replica.zone
            if config.split.kv_dialect:
                part = part_in_splits(replica.for_role, config.split)
                self.fleet.role_seen(joined, part)
            self._poller.watch(joined, replica.engine, health_path=replica.health_path)
            if replica.kv_events:
                self.kv_events.watch(joined, replica.kv_events)

    async def start(self) -> tuple[list[str], str]:
        """Open every socket and begin to watch the fleet.

        Returns:
            The URLs where clients can connect, and the one for operators.

        Raises:
            OSError: A socket could not be opened; the message names it.
        """
        async with AsyncExitStack() as opening:
            opening.push_async_callback(self._admin.aclose)
            admin = await self._admin.start(parse_address(self._config.admin))
            opening.callback(self._listeners.close)
            for listen in self._config.listen:
                await self._listeners.open(parse_address(listen))
            opening.push_async_callback(self.warm_up.aclose)
            opening.push_async_callback(self._introductions.aclose)
            opening.push_async_callback(self._poller.aclose)
            await self._poller.start()
            opening.push_async_callback(self.kv_events.aclose)
            await self.kv_events.start()
            opening.callback(self._lag.stop)
            self._lag.start()
            opening.callback(self._advisor.stop)
            self._advisor.start()
            self.plane.start()
            self._open = opening.pop_all()
        return self._listeners.urls, url_of(admin)

    def _make_introductions(self) -> Introductions:
        split, splits = self._config.split, self.plane.splits
        roles = {replica.full_name: replica.for_role for replica in self._config.replicas}

        def role_told(replica: Replica, role: Role) -> None:
            if roles.get(replica.name) is Role.BOTH:  # nobody said otherwise
                self.dispatcher.role_seen(replica, part_in_splits(role, split))

        return Introductions(split.kv_dialect, splits.peers if splits else {}, role_told)

    async def stop(self, grace_s: float) -> None:
        """Refuse new clients, let answers finish for up to ``grace_s``, close everything."""
        self.plane.stopping = True
        self._listeners.close()
        await self.plane.stop(grace_s)
        await self._open.aclose()

    def perform(self, actions: Actions) -> None:
        """Do what the dispatcher asks."""
        self.plane.perform(actions)

    def traffic(self) -> Traffic:
        """The data plane's gauges and counters."""
        traffic = self.plane.traffic()
        traffic.warm_up_total = self.warm_up.outcomes
        return traffic


class FleetEvents:
    """What the poller sees goes to the dispatcher; what that asks for goes to the data plane."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        plane: DataPlane,
        warm_up: WarmUp,
        introductions: Introductions,
    ) -> None:
        self._dispatcher = dispatcher
        self._plane = plane
        self._warm_up = warm_up
        self._introductions = introductions

    def look_began(self, replica: Replica) -> None:
        """The metrics of ``replica`` were asked for."""
        self._plane.perform(self._dispatcher.look_began(replica))

    def sampled(self, replica: Replica, sample: Sample, now: float) -> None:
        """The metrics of ``replica`` were read."""
        self._plane.perform(self._dispatcher.sampled(replica, sample, now))

    def sample_failed(self, replica: Replica, reason: str) -> None:
        """The metrics of ``replica`` could not be read."""
        self._plane.perform(self._dispatcher.sample_failed(replica, reason))

    def health_seen(self, replica: Replica, *, healthy: bool, reason: str) -> None:
        """The health of ``replica`` was looked at."""
        now, was_down = self._plane.now(), replica.health.state is Health.DOWN
        self._plane.perform(
            self._dispatcher.health_seen(replica, now, healthy=healthy, reason=reason)
        )
        if was_down and healthy:
            if replica.serves_whole:
                self._warm_up.begin(replica)
            self._introductions.begin(replica)

    def engine_seen(self, replica: Replica, engine: str) -> None:
        """It was found out which engine ``replica`` runs."""
        self._plane.perform(self._dispatcher.engine_seen(replica, engine))

    def models_seen(
        self, replica: Replica, models: Iterable[str], entries: Mapping[str, bytes]
    ) -> None:
        """``replica`` listed its models."""
        self._plane.perform(self._dispatcher.models_seen(replica, models, entries))
