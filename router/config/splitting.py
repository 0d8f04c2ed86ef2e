"""The part of the configuration that is on splitting requests over two replicas."""

from __future__ import annotations

from typing import Annotated

import msgspec

from router.config.bounds import Positive

Gbps = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]


class SplitConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Requests of which one replica computes the prompt and another answers."""

    kv_dialect: str = ""
    """How their engines move the KV cache: nixl, mooncake or p2p (vLLM), sglang, trtllm. Empty:
    nothing is split."""

    link_gbps: Gbps = 100.0
    """How fast KV reaches a replica, in Gbit/s, until that was learned."""

    kv_bytes_per_token: Positive = 131_072
    """Size of the KV cache of one token: 2 x layers x KV heads x head size x bytes a value, over
    all GPUs of a replica; 131072 for Llama-3.1-8B, 327680 for 70B, in 16 bits."""
