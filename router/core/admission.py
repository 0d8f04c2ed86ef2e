"""What the fleet has taken on, and whether it could carry it, and more, without some replicas.

Two ask: whoever lets requests in, where the fleet is to stay fit to lose its largest replica; and
whoever wants to eject one that is merely slow. Load is what was let in, not what arrived: else an
overload would keep everybody out. It is kept for each kind of replica, those that list the same
models; a request that several kinds serve is shared out among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING, Final

from policies.speed import Speed
from router.core.headroom import (
    RATE_SPAN_S,
    Capacity,
    Headroom,
    Load,
    Rate,
    capacity,
    headroom,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from policies.base import RequestFacts
    from router.core.fleet import FleetState
    from router.core.replica import Replica
    from router.core.request import Request

MOST_PRIORITY: Final = 4
"""Priorities beyond this, up or down, count as this: clients make them up."""

REFRESH_S: Final = 0.25
"""So long it is remembered what replicas can carry; speeds change slowly."""

USUAL_TOKENS: Final = 2048
"""Length of prompts before any came."""

LONGEST_RETRY_AFTER_S: Final = 30


@dataclass(slots=True, frozen=True, kw_only=True)
class HeadroomSettings:
    """What the fleet is kept fit for."""

    lose: int = 0
    """Only what it could still carry without so many of its largest replicas is let in; those that
    are out of service count as lost already. 0: everything is let in."""


class Kind:
    """What replicas that list the same models have taken on together."""

    __slots__ = ("kv_tokens", "requests", "tokens")

    def __init__(self) -> None:
        self.tokens: dict[int, Rate] = {}
        """Uncached prompt tokens, by priority."""
        self.kv_tokens: dict[int, float] = {}
        """Promised to requests that have not ended, by priority."""
        self.requests = Rate()

    def take(self, tokens: float, kv_tokens: float, share: float, level: int, now: float) -> None:
        """Take on a ``share`` of a request."""
        rate = self.tokens.get(level)
        if rate is None:
            rate = self.tokens[level] = Rate()
            self.kv_tokens[level] = 0.0
        rate.add(share * tokens, now)
        self.kv_tokens[level] += share * kv_tokens
        self.requests.add(share, now)

    def load(self, level: int, now: float) -> Load:
        """What is at least as urgent as ``level``."""
        return Load(
            sum(rate.per_s(now) for at, rate in self.tokens.items() if at <= level),
            sum(tokens for at, tokens in self.kv_tokens.items() if at <= level),
        )


_Shares = list[tuple[Kind, float]]


class Admission:
    """Knows what the fleet has taken on.

    Args:
        settings: What it is kept fit for.
        fleet: The replicas.
    """

    def __init__(self, settings: HeadroomSettings, fleet: FleetState) -> None:
        self.settings = settings
        self._fleet = fleet
        self._kinds: dict[frozenset[str], Kind] = {}
        self._open: dict[Request, tuple[_Shares, int, float]] = {}
        self._offered: Sequence[Replica] = ()
        self._offered_shares: _Shares = []
        """Of the replicas that were last offered: mostly they are the same."""
        self._carried: dict[Sequence[Replica], Capacity] = {}
        self._carried_s = 0.0

    def arrived(self, request: Request, now: float) -> int | None:
        """A request came; its facts say what is cached and how long its answer will be.

        Less urgent load is left out of account: it makes room, as none of it is let in any more.

        Returns:
            None when it is let in, which is noted. Otherwise after how many seconds it may be
            worth to come again.
        """
        facts = request.facts
        candidates = self._fleet.candidates(facts.model)
        if not candidates:  # it serves as a probe
            return None
        if candidates is not self._offered:
            self._offered, self._offered_shares = candidates, self._shares(candidates)
        shares = self._offered_shares
        level = facts.priority and min(max(facts.priority, -MOST_PRIORITY), MOST_PRIORITY)
        tokens = uncached_tokens(facts)
        kv_tokens = tokens + facts.expected_output_tokens
        if self.settings.lose and tokens:
            load = _load((kind for kind, _ in shares), level, now)
            carried = self._carries(candidates, now)
            nobody = carried.prefill_tokens_per_s <= 0
            if nobody or not headroom(carried, load).fits(kv_tokens):
                return _again_s(carried, load)
        for kind, share in shares:
            kind.take(tokens, kv_tokens, share, level, now)
        self._open[request] = (shares, level, kv_tokens)
        return None

    def ended(self, request: Request) -> None:
        """A request is over, whether it was let in or not."""
        taken = self._open.pop(request, None)
        if taken is not None:
            shares, level, kv_tokens = taken
            for kind, share in shares:
                kind.kv_tokens[level] -= share * kv_tokens

    def can_spare(self, names: Collection[str], now: float, *, restored: bool = False) -> bool:
        """Whether the others that serve the same could carry the present load without these.

        Args:
            names: Of these.
            now: The time.
            restored: Take all others to be in service.

        Raises:
            KeyError: There is none of some name.
        """
        for models in {self._fleet.replicas[name].models or frozenset[str]() for name in names}:
            alike = self._alike(models, restored=restored)
            kinds = list(self._kinds_of(alike))
            others = [replica for replica in alike if replica.name not in names]
            carried = together(self._capacities(others, kinds, now))
            if not headroom(carried, _load(kinds, MOST_PRIORITY, now)).carries:
                return False
        return True

    def left(self, now: float) -> Headroom | None:
        """What could still be let in, of the least urgent; the least of all kinds of replicas.

        None: no replica is in service.
        """
        found = []
        for models in {replica.models or frozenset[str]() for replica in self._in_service()}:
            alike = self._alike(models)
            kinds = list(self._kinds_of(alike))
            carried = together(self._capacities(alike, kinds, now), lose=self._to_lose(alike))
            found.append(headroom(carried, _load(kinds, MOST_PRIORITY, now)))
        if not found:
            return None
        kv_tokens = [left.kv_tokens for left in found if left.kv_tokens is not None]
        return Headroom(
            min(left.prefill_tokens_per_s for left in found), min(kv_tokens, default=None)
        )

    # -- inside -------------------------------------------------------------------------------

    def _carries(self, candidates: Sequence[Replica], now: float) -> Capacity:
        """What they carry after the loss that the fleet is kept fit for."""
        if now - self._carried_s >= REFRESH_S:
            self._carried.clear()
            self._carried_s = now
        found = self._carried.get(candidates)
        if found is None:
            capacities = self._capacities(candidates, self._kinds_of(candidates), now)
            found = self._carried[candidates] = together(capacities, lose=self._to_lose(candidates))
        return found

    def _to_lose(self, left: Sequence[Replica]) -> int:
        """How many more may be lost when these are left: the reserve is there to be used up."""
        models = frozenset[str]().union(*(replica.models or () for replica in left))
        out = sum(
            replica not in left and _share(replica, models)
            for replica in self._fleet.replicas.values()
        )
        return max(self.settings.lose - out, 0)

    def _capacities(
        self, replicas: Iterable[Replica], kinds: Iterable[Kind], now: float
    ) -> list[Capacity]:
        """What each of them carries of prompts as long as they usually are."""
        requests_per_s = tokens_per_s = 0.0
        for kind in kinds:
            requests_per_s += kind.requests.per_s(now)
            tokens_per_s += kind.load(MOST_PRIORITY, now).prefill_tokens_per_s
        usual_tokens = tokens_per_s / requests_per_s if requests_per_s else USUAL_TOKENS
        return [capacity(_speed(r), r.kv_tokens, usual_tokens) for r in replicas]

    def _shares(self, candidates: Sequence[Replica]) -> _Shares:
        if self._fleet.uniform():
            return [(self._kind(candidates[0].models or frozenset()), 1.0)]
        counts: dict[frozenset[str], int] = {}
        for replica in candidates:
            models = replica.models or frozenset()
            counts[models] = counts.get(models, 0) + 1
        return [(self._kind(models), count / len(candidates)) for models, count in counts.items()]

    def _kind(self, models: frozenset[str]) -> Kind:
        kind = self._kinds.get(models)
        if kind is None:
            self._drop_kinds()
            kind = self._kinds[models] = Kind()
        return kind

    def _drop_kinds(self) -> None:
        """Forget kinds of which there is no replica any more: adapters come and go."""
        present = {replica.models or frozenset() for replica in self._fleet.replicas.values()}
        self._kinds = {models: kind for models, kind in self._kinds.items() if models in present}

    def _kinds_of(self, replicas: Iterable[Replica]) -> Iterator[Kind]:
        for models in {replica.models or frozenset[str]() for replica in replicas}:
            yield self._kind(models)

    def _in_service(self) -> Iterator[Replica]:
        return (r for r in self._fleet.replicas.values() if r.ready and r.health.in_service)

    def _alike(self, models: frozenset[str], *, restored: bool = False) -> list[Replica]:
        """Replicas in service with which ones of these models have any in common."""
        replicas = self._fleet.replicas.values() if restored else self._in_service()
        return [replica for replica in replicas if _share(replica, models)]


def uncached_tokens(facts: RequestFacts) -> int:
    """Prompt tokens that must be computed where most of them are cached."""
    if not facts.cached:
        return facts.prompt_tokens
    return max(facts.prompt_tokens - max(facts.cached.values()), 0)


def _speed(replica: Replica) -> Speed:
    return replica.forecast.speed if replica.forecast is not None else Speed()


def _share(replica: Replica, models: frozenset[str]) -> bool:
    """Whether the replica serves any of these models; none are any."""
    own = replica.models
    return own is not None and (not models or not own or bool(models & own))


def _load(kinds: Iterable[Kind], level: int, now: float) -> Load:
    loads = [kind.load(level, now) for kind in kinds]
    return Load(
        sum(load.prefill_tokens_per_s for load in loads), sum(load.kv_tokens for load in loads)
    )


def _again_s(carried: Capacity, load: Load) -> int:
    """When the load will have faded to what is carried, if nothing else comes."""
    if carried.prefill_tokens_per_s <= 0:
        return LONGEST_RETRY_AFTER_S
    over = load.prefill_tokens_per_s / carried.prefill_tokens_per_s
    spans = log(over) if over > 1 else 0.0
    return min(max(ceil(RATE_SPAN_S * spans), 1), LONGEST_RETRY_AFTER_S)
