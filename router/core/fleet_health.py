"""The health of all replicas together: who may be ejected, and who is offered to the policy.

Ejecting never makes things worse: the last replica that serves something stays, so does one that
the others could not stand in for, and when too few are in service the ejected ones are used again.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from router.core.health import Cause, Health, HealthSettings, Transition
from router.core.outcome import Outcome, outcome_of_status
from router.core.replica_health import ReplicaHealth
from router.core.shares import R, charge, within_share

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from random import Random

    from router.core.shares import Watched

REFUSALS_APART_S = 5.0
"""An ejection that cannot be made is told of again after this time at the earliest."""


class FleetHealth:
    """Judges every attempt and every look at a health endpoint.

    Events return the change that they brought about, if any; the driver logs and counts it, and
    asks :meth:`in_service` anew.

    Args:
        settings: Thresholds.
        rng: Source of the jitter.
    """

    def __init__(self, settings: HealthSettings, rng: Random) -> None:
        self.settings = settings
        self.can_spare: Callable[[Collection[str], float], bool] | None = None
        """Whether the others could carry the present load without those of these names; asked
        before one that still does some work is ejected. None: yes."""
        self.replicas: dict[str, ReplicaHealth] = {}
        self.transitions: Counter[tuple[Health, Health, Cause]] = Counter()
        """Changes since the start; equal states: an ejection that could not be made."""
        self._rng = rng
        self._limited = False
        self._busy_until_s = 0.0
        self._refused_s: dict[str, float] = {}

    @property
    def panic(self) -> bool:
        """Whether so few are in service that ejected ones are used as well."""
        reachable = [health for health in self.replicas.values() if health.reachable]
        return self._too_few(sum(health.in_service for health in reachable), len(reachable))

    @property
    def limited(self) -> bool:
        """Whether any replica that can be reached is not to be used without bounds."""
        return self._limited

    # -- the fleet --------------------------------------------------------------------------------

    def join(self, name: str, *, cold: bool = False) -> ReplicaHealth:
        """A replica joined; ``cold``: while others serve already, so that it has to warm up."""
        health = self.replicas[name] = ReplicaHealth(name, self.settings, self._rng, cold=cold)
        return health

    def leave(self, name: str) -> None:
        """A replica left.

        Raises:
            KeyError: There is none of that name.
        """
        del self.replicas[name]
        self._refused_s.pop(name, None)
        self._recount()

    # -- active signals ---------------------------------------------------------------------------

    def seen(
        self, health: ReplicaHealth, now: float, *, healthy: bool, reason: str
    ) -> Transition | None:
        """A health endpoint was looked at."""
        change = health.seen_up(now) if healthy else health.seen_down(reason, now)
        return self._note(change)

    # -- passive signals --------------------------------------------------------------------------

    def answered(
        self,
        health: ReplicaHealth,
        status: int,
        sent_s: float,
        now: float,
        *,
        retry_after_s: float | None = None,
        counts: bool = True,
    ) -> Transition | None:
        """An attempt sent at ``sent_s`` was answered: in full, or with an error status.

        Args:
            health: Of the replica.
            status: The final status.
            sent_s: When the attempt was sent.
            now: The time.
            retry_after_s: From the answer's head.
            counts: False once a request has counted against a replica: a failure of one that
                breaks whatever it meets says no more of the next.
        """
        if status < 400:
            return self._note(health.succeeded(sent_s, now))
        outcome = outcome_of_status(status)
        if outcome is Outcome.FAILURE:
            return self.failed(health, sent_s, now, counts=counts)
        if outcome is Outcome.BACK_PRESSURE:
            health.pushed_back(retry_after_s, now)
            self._busy_until_s = max(self._busy_until_s, health.busy_until_s)
            return None
        if health.probing:
            # The API server can refuse a request while its engine is dead.
            health.probe_abandoned(sent_s)
            return None
        return self._note(health.succeeded(sent_s, now))

    def streamed(
        self, health: ReplicaHealth, tokens: int, sent_s: float, now: float
    ) -> Transition | None:
        """An attempt has streamed ``tokens`` so far; only needed while ``health.probing``."""
        return self._note(health.streamed(sent_s, tokens, now))

    def failed(
        self,
        health: ReplicaHealth,
        sent_s: float,
        now: float,
        *,
        counts: bool = True,
        refused: bool = False,
    ) -> Transition | None:
        """An attempt failed: refused, reset, garbled, timed out, or a status that says so.

        Args:
            health: Of the replica.
            sent_s: When the attempt was sent.
            now: The time.
            counts: As for :meth:`answered`.
            refused: No connection could be made. That is no request's fault, so the replica is
                passed over for a moment even before there is cause to eject it: else requests
                would spend their tries on it.
        """
        if refused:
            health.pushed_back(self.settings.refused_s, now)
            self._busy_until_s = max(self._busy_until_s, health.busy_until_s)
        if not counts:
            health.probe_abandoned(sent_s)
            return None
        evidence = health.failed(sent_s, now)
        return self._eject(health, *evidence, now) if evidence is not None else None

    def left(self, health: ReplicaHealth, sent_s: float) -> None:
        """The client of an attempt left."""
        health.probe_abandoned(sent_s)

    def stalled(self, health: ReplicaHealth, detail: str, now: float) -> Transition | None:
        """It makes no progress although it has work."""
        return self._eject(health, Cause.STALL, detail, now)

    def slowed(
        self, health: ReplicaHealth, weight: float, detail: str, now: float, *, eject: bool
    ) -> Transition | None:
        """It is so much slower than it was and than its peers that ``weight`` would be fair.

        A weight of 1 says that it is well again; ``eject``: it is too slow for any share.
        """
        if eject:
            change = self._eject(health, Cause.GRAY, detail, now)
            if not health.in_service:
                return change
            health.slowed(weight)
            self._recount()
            return change
        health.slowed(weight)
        self._recount()
        return None

    # -- people --------------------------------------------------------------------------------

    def drain(
        self, health: ReplicaHealth, detail: str, now: float, *, until_restart: bool = True
    ) -> Transition | None:
        """Give it nothing new; whether that is allowed stands in ``router.core.drain_rules``."""
        return self._note(health.drain(detail, now, until_restart=until_restart))

    def undrain(self, health: ReplicaHealth, detail: str, now: float) -> Transition | None:
        """Let it have requests again."""
        return self._note(health.undrain(detail, now))

    def tick(self, now: float) -> list[Transition]:
        """Time has passed: back-offs, silent probes, ramps."""
        changes = [self._note(health.tick(now)) for health in self.replicas.values()]
        self._recount()
        return [change for change in changes if change is not None]

    # -- who is offered ---------------------------------------------------------------------------

    def in_service(self, serving: Iterable[R]) -> Sequence[R]:
        """Those of the replicas that serve a model that are to be offered; changes only with a
        transition, so it may be remembered until the next one.

        With too few in service the ejected and half-open ones are offered too, but not what makes
        no token at all; that only when there is nothing else.
        """
        reachable = [replica for replica in serving if replica.health.reachable]
        good = [replica for replica in reachable if replica.health.in_service]
        if not self._too_few(len(good), len(reachable)):
            return good
        moving = [r for r in reachable if not r.health.stalled]
        return moving or reachable

    def offered(self, candidates: Sequence[R], now: float, *, again: bool = False) -> Sequence[R]:
        """Those of ``candidates`` that may get a request now.

        Args:
            candidates: From :meth:`in_service`.
            now: The time.
            again: The request was turned away or failed elsewhere already: then nothing is better
                than one that said it is busy, and the answer may be empty.
        """
        if not self._limited and now >= self._busy_until_s:
            return candidates
        free: Sequence[R] = [c for c in candidates if now >= c.health.busy_until_s]
        if not free:
            return free if again else candidates
        if not self._limited:
            return free
        return within_share(free, self.settings.slow_start.most_over_fair, now)

    def probe(self, serving: Iterable[R], prompt_tokens: int, now: float) -> R | None:
        """A half-open replica that this request should be sent to, whatever the policy thinks.

        It is the one that has waited longest. The caller gives only requests that can be sent
        again, and among ``serving`` only what the request was not sent to yet.
        """
        if not self._limited or prompt_tokens > self.settings.probe_prompt_tokens:
            return None
        due = [replica for replica in serving if _due(replica.health, now)]
        return min(due, key=_waiting_since, default=None)

    def dispatched(
        self, chosen: Watched, candidates: Sequence[Watched], prompt_tokens: int, now: float
    ) -> None:
        """A request was sent to ``chosen``, one of ``candidates`` or a probe."""
        if not self._limited:
            return
        health = chosen.health
        health.probe_sent(now)
        if health.ramp is not None:
            health.ramp.sent(prompt_tokens)
        if candidates:
            charge(chosen, candidates, self.settings.slow_start.most_over_fair, now)

    def soonest_s(self, serving: Iterable[Watched], now: float) -> float | None:
        """How long until one of ``serving`` may take a request again; None: nobody knows."""
        spans = [_back_in_s(replica.health, now) for replica in serving]
        return min((span for span in spans if span is not None), default=None)

    # -- inside --------------------------------------------------------------------------------

    def _too_few(self, in_service: int, reachable: int) -> bool:
        return in_service < self.settings.panic_share * reachable

    def _eject(
        self, health: ReplicaHealth, cause: Cause, detail: str, now: float
    ) -> Transition | None:
        if not health.reachable or health.state is Health.EJECTED:
            return None
        if health.in_service:
            why_not = self._why_not(health, cause, now)
            if why_not:
                return self._refuse(health, cause, f"{detail}; not ejected: {why_not}", now)
        return self._note(health.eject(cause, detail, now))

    def _refuse(
        self, health: ReplicaHealth, cause: Cause, detail: str, now: float
    ) -> Transition | None:
        health.pardon(now)
        if now < self._refused_s.get(health.name, now):
            return None
        self._refused_s[health.name] = now + REFUSALS_APART_S
        return self._note(Transition(health.name, health.state, health.state, cause, detail, now))

    def _why_not(self, health: ReplicaHealth, cause: Cause, now: float) -> str:
        """Why the fleet cannot do without it; empty: it can."""
        peers = [p for p in self.replicas.values() if p is not health and _alike(p, health)]
        peers = [peer for peer in peers if peer.reachable]
        good = [peer for peer in peers if peer.in_service]
        if not good:
            return "no other replica is in service"
        if cause is Cause.STALL:
            return ""
        alone = [m for m in sorted(health.models) if not any(_serves(p, m) for p in good)]
        if alone:
            return f"no other replica in service has {alone[0]}"
        most = max(int(self.settings.max_ejected * (len(peers) + 1)), 1)
        if len(peers) - len(good) >= most:
            return f"{most} of {len(peers) + 1} are out already, which is the most allowed"
        can_spare = self.can_spare
        if cause is Cause.GRAY and can_spare is not None and not can_spare({health.name}, now):
            return "the others cannot carry the load"
        return ""

    def _note(self, change: Transition | None) -> Transition | None:
        if change is not None:
            self.transitions[change.before, change.after, change.cause] += 1
            self._recount()
        return change

    def _recount(self) -> None:
        self._limited = any(h.reachable and h.limited for h in self.replicas.values())


def _alike(one: ReplicaHealth, other: ReplicaHealth) -> bool:
    """Whether there is anything that both serve."""
    return not one.models or not other.models or bool(one.models & other.models)


def _serves(health: ReplicaHealth, model: str) -> bool:
    return not health.models or model in health.models


def _due(health: ReplicaHealth, now: float) -> bool:
    return health.probing and health.probe_sent_s is None and now >= health.busy_until_s


def _waiting_since(replica: Watched) -> float:
    return replica.health.since_s


def _back_in_s(health: ReplicaHealth, now: float) -> float | None:
    if not health.reachable:
        return None
    if health.state is Health.EJECTED:
        return max(health.ejected_until_s - now, 0.0)
    return max(health.busy_until_s - now, 0.0)
