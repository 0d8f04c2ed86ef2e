"""The fleet: which replicas there are, which are ready, which serve what."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from policies.base import Role
from router.core.fleet_health import FleetHealth
from router.core.health import HealthSettings
from router.core.pace_meter import PaceMeter
from router.core.replica import PartInSplits, Replica
from router.core.stall import Silence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from policies.forecast import Forecast
    from router.core.health import Transition
    from router.core.sample import Sample


class FleetState:
    """All replicas, and the facts about them that pollers and attempts report.

    Args:
        sample_lifetime_s: A sample older than this is not believed any more.
        health: Who judges the replicas; one with the usual settings when left out.
    """

    def __init__(
        self, *, sample_lifetime_s: float = 2.0, health: FleetHealth | None = None
    ) -> None:
        self.sample_lifetime_s = sample_lifetime_s
        self.health = health or FleetHealth(HealthSettings(), Random(0))
        self.replicas: dict[str, Replica] = {}
        self._candidates: dict[str | None, Sequence[Replica]] = {}
        self._serving_any: Sequence[Replica] | None = None
        self._models: frozenset[str] | None = None
        self._uniform: bool | None = None
        self._needs_pairs: bool | None = None
        self._has_roles: bool | None = None

    def add(self, name: str, url: str, *, cold: bool = False) -> Replica:
        """Let a replica join; it becomes ready once health and models were seen.

        Args:
            name: Its name.
            url: Base URL, without a trailing slash.
            cold: Others serve already, so that it has to prove itself and to warm up first.

        Raises:
            ValueError: There is a replica of that name already.
        """
        if name in self.replicas:
            msg = f"replica {name!r} is listed twice"
            raise ValueError(msg)
        health = self.health.join(name, cold=cold)
        replica = self.replicas[name] = Replica(name, url, health)
        self.forget()
        return replica

    def remove(self, name: str) -> Replica:
        """Let a replica leave; attempts on it go on.

        Raises:
            KeyError: There is none of that name.
        """
        replica = self.replicas.pop(name)
        self.health.leave(name)
        replica.health.draining = True  # what still runs there says nothing of the fleet
        self.forget()
        return replica

    def candidates(self, model: str | None) -> Sequence[Replica]:
        """The replicas in service that serve ``model``, in the order in which they joined.

        With too few of them, others that can be reached are among them.
        """
        found = self._candidates.get(model)
        if found is None:
            if model is not None and model not in self.models():
                return self._indifferent()
            found = tuple(self._in_service(self.serving(model)))
            self._candidates[model] = found
        return found

    def _in_service(self, serving: Sequence[Replica]) -> Sequence[Replica]:
        """As of the fleet's health; each side has its own least number."""
        if not self.has_roles():
            return self.health.in_service(serving)
        found = [r for side in self.sides(serving) for r in self.health.in_service(side)]
        return [replica for replica in serving if replica in found]

    def serving(self, model: str | None) -> Sequence[Replica]:
        """All replicas that serve ``model``, whatever their health."""
        return [r for r in self.replicas.values() if r.serves(model)]

    def models(self) -> frozenset[str]:
        """Every model and adapter that a ready replica lists."""
        if self._models is None:
            listed = (r.models for r in self.replicas.values() if r.ready and r.models)
            self._models = frozenset[str]().union(*listed)
        return self._models

    def knows(self, model: str) -> bool:
        """Whether any replica, ready or not, serves ``model`` or may do so.

        One that never listed its models may serve any; but once others are ready it says nothing
        more: a replica that never comes up would make every mistyped name wait for it.
        """
        replicas = self.replicas.values()
        if any(r.serves(model) for r in replicas):
            return True
        return any(r.models is None for r in replicas) and not self.any_ready()

    def lists(self, model: str) -> bool:
        """Whether any replica, ready or not, lists ``model``."""
        return any(r.models is not None and model in r.models for r in self.replicas.values())

    def uniform(self) -> bool:
        """Whether all ready replicas serve the same, so that a request need not name a model.

        Asked for each request that names none, so it is remembered until the fleet changes.
        """
        if self._uniform is None:
            self._uniform = len({r.models for r in self.replicas.values() if r.ready}) <= 1
        return self._uniform

    def has_roles(self) -> bool:
        """Whether replicas have different parts in splitting requests; remembered likewise."""
        if self._has_roles is None:
            self._has_roles = any(r.role is not Role.BOTH for r in self.replicas.values())
        return self._has_roles

    def needs_pairs(self) -> bool:
        """Whether some replicas serve no request alone; remembered as :meth:`uniform` is."""
        if self._needs_pairs is None:
            self._needs_pairs = not all(r.serves_whole for r in self.replicas.values())
        return self._needs_pairs

    def sides(self, replicas: Sequence[Replica]) -> Sequence[Sequence[Replica]]:
        """Those of ``replicas`` that stand in for each other: those of one role."""
        if not self.has_roles():
            return (replicas,)
        by_role = ([r for r in replicas if r.role is role] for role in Role)
        return [side for side in by_role if side]

    def role_seen(self, replica: Replica, part: PartInSplits) -> None:
        """A replica has this part in splitting requests; what was learned of it stays."""
        if replica.role is not part.role or replica.transfer is None:
            replica.take_part(part)
            self.forget()

    def any_ready(self) -> bool:
        """Whether at least one replica is ready and not being drained."""
        return any(r.ready and not r.health.draining for r in self.replicas.values())

    def look_began(self, replica: Replica) -> None:
        """A metrics page was asked for: it cannot know of attempts sent from here on."""
        replica.unseen_at_look = replica.unseen

    def sampled(self, replica: Replica, sample: Sample, now: float) -> None:
        """A metrics page was read."""
        before = replica.sample.preemptions_total if replica.sample else None
        if before is not None and (sample.preemptions_total or 0) > before:
            replica.preempted_s = now
        replica.sample = sample
        replica.sampled_s = now
        replica.poll_error = None
        seen = replica.unseen if replica.unseen_at_look is None else replica.unseen_at_look
        replica.unseen -= seen
        replica.unseen_at_look = None
        replica.gauges.seen(sample, replica.in_flight - replica.unseen)
        replica.believe(sample)
        if replica.gauges.frozen:
            replica.doubt()

    def sample_failed(self, replica: Replica, reason: str) -> None:
        """A metrics page could not be read; the replica stays in service."""
        replica.poll_error = reason

    def health_seen(
        self, replica: Replica, *, healthy: bool, reason: str, now: float = 0.0
    ) -> Transition | None:
        """The health endpoint answered, or did not; returns what that changes."""
        if healthy and not replica.healthy:
            replica.silence = Silence(now)
            replica.meter = PaceMeter(now)
        if healthy != replica.healthy:
            self.forget()
        replica.healthy = healthy
        replica.health_reason = reason
        return self.health.seen(replica.health, now, healthy=healthy, reason=reason)

    def engine_seen(self, replica: Replica, engine: str) -> None:
        """It was found out which engine the replica runs."""
        replica.engine = engine

    def models_seen(
        self, replica: Replica, models: Iterable[str], entries: Mapping[str, bytes] | None = None
    ) -> bool:
        """The replica listed its models; returns whether that is a change.

        Args:
            replica: Who.
            models: Their ids, adapters among them.
            entries: What it says of each: a JSON object.
        """
        listed = frozenset(models)
        replica.model_entries = entries or {}
        changed = replica.models != listed
        if changed:
            replica.models = replica.health.models = listed
            self.forget()
        return changed

    def forget(self) -> None:
        """Something changed: who may be given what is found out anew."""
        self._candidates.clear()
        self._serving_any = self._models = self._uniform = None
        self._needs_pairs = self._has_roles = None

    def expire_samples(self, now: float) -> list[Replica]:
        """Stop believing samples that are too old; returns the replicas that have such."""
        oldest_s = now - self.sample_lifetime_s
        late = [
            replica
            for replica in self.replicas.values()
            if replica.sampled_s is not None and replica.sampled_s < oldest_s
        ]
        for replica in late:
            replica.doubt()
        return late

    def snapshot(self, now: float) -> list[Mapping[str, object]]:
        """The whole fleet as plain data, for people and tools."""
        return [_snapshot(replica, now) for replica in self.replicas.values()]

    def _indifferent(self) -> Sequence[Replica]:
        # Names of models that no replica lists are made up by clients, so all of them share this
        # one entry: remembered one by one they would fill the memory.
        if self._serving_any is None:
            serving = [r for r in self.serving(None) if not r.models]
            self._serving_any = tuple(self.health.in_service(serving))
        return self._serving_any


def _snapshot(replica: Replica, now: float) -> dict[str, object]:
    sample = replica.sample
    return {
        "name": replica.name,
        "url": replica.url,
        "engine": replica.engine,
        "ready": replica.ready,
        "healthy": replica.healthy,
        "health_reason": replica.health_reason,
        "health": replica.health.snapshot(now),
        "models": sorted(replica.models) if replica.models is not None else None,
        "running": replica.running,
        "waiting": replica.waiting,
        "kv_occupancy": replica.kv_occupancy,
        "preemptions_total": sample.preemptions_total if sample else None,
        "prefix_hit_rate": sample.prefix_hit_rate if sample else None,
        "kv_block_tokens": sample.kv_block_tokens if sample else None,
        "kv_blocks": sample.kv_blocks if sample else None,
        "sample_age_s": None if replica.sampled_s is None else round(now - replica.sampled_s, 3),
        "poll_error": replica.poll_error,
        "own_bookkeeping": replica.blind,
        "learned": _learned(replica.forecast),
        "in_flight": replica.in_flight,
        "in_flight_prompt_tokens": replica.in_flight_prompt_tokens,
        "in_flight_output_tokens": replica.in_flight_output_tokens,
        "role": replica.role.value,
        "zone": replica.zone,
        "dispatched_total": replica.dispatched_total,
        "failed_total": replica.failed_total,
    }


def _learned(forecast: Forecast | None) -> dict[str, float] | None:
    """What was learned of a replica's speed, and what it means at present."""
    if forecast is None:
        return None
    forecast.look()
    return {
        "prefill_ms_per_1k_tokens": round(forecast.speed.prefill_time_s(1000) * 1000, 2),
        "step_ms": round(forecast.step_s * 1000, 2),
        "queue_s": round(forecast.queue_s, 3),
    }
