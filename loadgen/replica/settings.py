"""What a simulated replica is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from policies.base import Role

if TYPE_CHECKING:
    from loadgen.engine.profile import Profile


@dataclass(slots=True, frozen=True, kw_only=True)
class ReplicaSettings:
    """One simulated replica."""

    profile: Profile
    engine: str = "vllm"
    """Whose metric names, health answers and error shapes it speaks: see ``flavours``."""

    models: tuple[str, ...] = ()
    """Names of the model; empty: the profile's."""

    adapters: tuple[str, ...] = ()
    """LoRA adapters beside it."""

    speed: float = 1.0
    """Virtual seconds in a real one."""

    load_s: float = 0.0
    """Real seconds until the model is loaded."""

    kv_tokens: int | None = None
    max_batched_tokens: int | None = None
    max_sequences: int | None = None
    max_model_tokens: int | None = None
    role: Role = Role.BOTH
    """What it is there for, where requests are split."""

    kv_dialect: str = ""
    """How KV moves between replicas: see ``kv.dialects``; empty: not at all."""

    link_gbps: float = 400.0
    """How fast KV reaches it, in Gbit per virtual second."""

    kv_lease_s: float = 30.0
    """So long, in real seconds, it keeps the KV of a prompt that nobody comes for."""

    engine_id: str = field(default_factory=lambda: uuid4().hex)
    """What it calls itself before other replicas: another one after each start."""

    seed: int = 0
    """Of the chance by which faults hit requests."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names under which the base model is served."""
        return self.models or (self.profile.model,)
