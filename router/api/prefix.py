"""Keys for the blocks of a prompt, chained from its start.

Equal keys mean equal text up to the end of the block, the same model and adapter, and the same
salt. Token ids are cut by number, text by bytes: without a tokenizer nobody knows where a token
ends, but equal bytes are equal tokens.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msgspec import Raw

BLOCK_BYTES = 1024
"""Text in one block: 256 tokens at 4 bytes each."""

BLOCK_IDS = 256
"""Token ids in one block."""

STEP_IDS = 16
"""Token ids that are hashed at once: the block size of most engines is this or a multiple."""

STEPS_PER_BLOCK = BLOCK_IDS // STEP_IDS

MAX_BLOCKS = 8192
"""Blocks of one prompt that get keys; two million tokens."""

_MOST_KNOWN = 256
"""Names up to this length have their roots remembered: clients make them up."""


def root(
    tenant: str | None, model: str | None, cache_salt: bytes | Raw = b"", *others: bytes | Raw
) -> int:
    """The key before the first block: it tells prompts apart that must share nothing.

    Args:
        tenant: Whose prompt it is, where tenants share no caches.
        model: The model or adapter that reads it.
        cache_salt: vLLM's field of that name, as JSON.
        others: Whatever else makes other tokens of the same text, or other KV of the same tokens.
    """
    if cache_salt or others or len(tenant or "") > _MOST_KNOWN or len(model or "") > _MOST_KNOWN:
        return _hash_root(tenant, model, cache_salt, *others)
    return _known_root(tenant, model)


def _hash_root(tenant: str | None, model: str | None, *others: bytes | Raw) -> int:
    whose = f"{tenant or ''}\0{model or ''}".encode(errors="surrogatepass")
    return xxh3_64_intdigest(b"\0".join((whose, *others)).rstrip(b"\0"))


# Requests for the same few models come again and again.
_known_root = lru_cache(256)(_hash_root)


def text_keys(text: memoryview, key: int) -> tuple[int, ...]:
    """The keys of the full blocks of a text, without one that ends where the text does.

    Args:
        text: What the model reads, in its order.
        key: The :func:`root`.
    """
    end = (len(text) - 1) // BLOCK_BYTES * BLOCK_BYTES
    end = min(end, MAX_BLOCKS * BLOCK_BYTES)
    keys, digest, at = [], xxh3_64_intdigest, 0
    while at < end:
        key = digest(text[at : at + BLOCK_BYTES], key)
        keys.append(key)
        at += BLOCK_BYTES
    return tuple(keys)


def id_keys(ids: Sequence[int], key: int) -> tuple[int, ...]:
    """The same of token ids: an engine computes the last token of a prompt again in any case.

    Raises:
        OverflowError: An id is negative or has more than 32 bits.
    """
    whole = max(0, min(len(ids) - 1, MAX_BLOCKS * BLOCK_IDS)) // BLOCK_IDS * BLOCK_IDS
    steps = id_steps(ids[:whole], key)
    return tuple(steps[STEPS_PER_BLOCK - 1 :: STEPS_PER_BLOCK])


def id_steps(ids: Sequence[int], key: int) -> list[int]:
    """The keys after each :data:`STEP_IDS` token ids; a part that is no full step is left out.

    Each follows from the one before it, so that who remembers that one needs no older ids.

    Raises:
        OverflowError: An id is negative or has more than 32 bits.
    """
    packed = memoryview(array("I", ids)).cast("B")
    width = len(packed) // len(ids) * STEP_IDS if ids else 1
    steps, digest = [], xxh3_64_intdigest
    for at in range(0, len(packed) - width + 1, width):
        key = digest(packed[at : at + width], key)
        steps.append(key)
    return steps
