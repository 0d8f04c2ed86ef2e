"""What a simulated replica is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    seed: int = 0
    """Of the chance by which faults hit requests."""

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names under which the base model is served."""
        return self.models or (self.profile.model,)
