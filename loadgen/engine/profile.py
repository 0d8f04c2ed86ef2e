"""The constants of one kind of replica: a model on a number of GPUs.

Profiles are readable files in ``loadgen/profiles``; what each constant was measured or derived
from stands there beside it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class LinearCost(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """All operators of a step but attention, over ``n`` tokens: ``max(floor, a + b * n)``."""

    floor_ms: Positive
    a_ms: NotNegative
    b_ms_per_1000_tokens: Positive


class AttentionCost(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Attention: compute-bound in prefill, bound by reading the KV cache in decode."""

    prefill_ms_per_token_pair: NotNegative
    """For each new token and each token that it looks at."""

    decode_ms_per_context_token: NotNegative
    """For each token of context of each decoding sequence."""


class AllReduceCost(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One tensor-parallel all-reduce: ``max(small, a + b * message bytes)``."""

    per_step: Annotated[int, msgspec.Meta(ge=0)] = 0
    """All-reduces in a step: two a layer; 0 without tensor parallelism."""

    bytes_per_token: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Message bytes for each token in the step: hidden size times two."""

    small_ms: NotNegative = 0.0
    a_ms: NotNegative = 0.0
    b_ms_per_byte: NotNegative = 0.0


class CpuCost(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What the engine's own code adds to a step."""

    step_ms: NotNegative
    sequence_ms: NotNegative
    """For each running sequence."""


class Profile(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One kind of replica."""

    name: str
    model: str
    """Default name under which the replica serves its model."""

    linear: LinearCost
    attention: AttentionCost
    cpu: CpuCost
    all_reduce: AllReduceCost = AllReduceCost()

    kv_bytes_per_token: Count
    """Of the whole model, however many GPUs share it."""

    kv_tokens: Count
    """Tokens that the KV cache holds."""

    block_tokens: Count = 16
    max_batched_tokens: Count
    """Token budget of a step."""

    max_sequences: Count
    """Most sequences running at once."""

    max_model_tokens: Count
    """Longest sequence, prompt and answer together."""

    load_s: NotNegative
    """From the start of the process to the first request served."""


def profile_names() -> list[str]:
    """The names of the profiles that come with pointsman, sorted."""
    return sorted(file.name.removesuffix(".toml") for file in _profile_files())


def load_profile(name_or_file: str) -> Profile:
    """Read a profile by its name, or from a file of one's own that ends in ``.toml``.

    Raises:
        ValueError: There is no such profile, or the file does not hold one; the message says
            which, where and what is allowed.
    """
    if name_or_file.endswith(".toml"):
        return _decode(_read(name_or_file), name_or_file)
    for file in _profile_files():
        if file.name == f"{name_or_file}.toml":
            return _decode(file.read_bytes(), file.name)
    raise ValueError(
        f"unknown profile {name_or_file!r}: it is one of {', '.join(profile_names())}, "
        "or a file whose name ends in .toml"
    )


def _profile_files() -> list[Traversable]:
    folder = files("loadgen").joinpath("profiles")
    return [file for file in folder.iterdir() if file.name.endswith(".toml")]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read profile {path}: {error.strerror}") from error


def _decode(data: bytes, where: str) -> Profile:
    try:
        return msgspec.toml.decode(data, type=Profile)
    except msgspec.DecodeError as error:
        raise ValueError(f"profile {where}: {error}") from error
