"""What is simulated, apart from requests and policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.base import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.engine.profile import Profile
    from loadgen.simulate.scenario import Fault
    from policies.slo import Slo


LATE_SHARE = 0.01
"""Share of the gaps of an answer that may be late."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ReplicaPlan:
    """One replica of the fleet."""

    profile: Profile
    speed: float = 1.0
    """Factor on its profile's speed; 0.5 takes twice as long for each step."""

    max_batched_tokens: int | None = None
    """Token budget of a step, else the profile's."""

    kv_tokens: int | None = None
    """Tokens in the KV cache, else the profile's."""

    role: Role = Role.BOTH
    """What it is there for, in a fleet that splits requests."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Delays:
    """How long messages take; seconds. The client stands beside the router."""

    network_s: float = 0.0005
    """From the router to a replica, and as long back."""

    poll_interval_s: float = 0.25
    """Between the end of one look at a replica's metrics and the next; the router's default."""

    poll_jitter: float = 0.1
    """Share by which that varies, evenly to both sides; as in the router."""

    poll_timeout_s: float = 2.0
    """A look that takes longer has failed; the router's default."""

    poll_answer_s: float = 0.005
    """From reading its gauges to sending the page; the gauges are that much older."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Settings:
    """A fleet, what befalls it, and what counts as good."""

    replicas: Sequence[ReplicaPlan]
    slo: Slo
    faults: Sequence[Fault] = ()
    delays: Delays = field(default_factory=Delays)
    late_gap_s: float | None = None
    """A request is only good if no more than :data:`LATE_SHARE` of the gaps between its tokens are
    longer; None: they do not matter."""

    link_bytes_per_s: float = 400e9 / 8
    """How fast KV leaves or reaches a replica, in a fleet that splits requests."""

    timeout_s: float = 600.0
    """A client whose answer has not ended by then leaves."""

    @property
    def has_roles(self) -> bool:
        """Whether prompts may be computed on one replica and answered by another."""
        return any(replica.role is not Role.BOTH for replica in self.replicas)

    @property
    def fleet(self) -> str:
        """The fleet in words: equal neighbours together, ``4 x 8b-h100 + 4 x 8b-h100 at 0.5``."""
        groups: list[tuple[str, int]] = []
        for replica in self.replicas:
            name = _described(replica)
            if groups and groups[-1][0] == name:
                groups[-1] = (name, groups[-1][1] + 1)
            else:
                groups.append((name, 1))
        return " + ".join(f"{count} x {name}" for name, count in groups)


def _described(replica: ReplicaPlan) -> str:
    text = replica.profile.name
    if replica.role is not Role.BOTH:
        text += f" for {replica.role.value}"
    if replica.speed != 1:
        text += f" at {replica.speed:g}"
    if replica.max_batched_tokens is not None:
        text += f" (budget {replica.max_batched_tokens})"
    if replica.kv_tokens is not None:
        text += f" (KV {replica.kv_tokens})"
    return text
