"""The flavours by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadgen.replica.flavours.llamacpp import LlamaCpp
from loadgen.replica.flavours.sglang import Sglang
from loadgen.replica.flavours.tgi import Tgi
from loadgen.replica.flavours.vllm import Vllm

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadgen.replica.flavours.base import Flavour

FLAVOURS: Final[dict[str, Callable[[], Flavour]]] = {
    "vllm": Vllm,
    "sglang": Sglang,
    "tgi": Tgi,
    "llamacpp": LlamaCpp,
}
