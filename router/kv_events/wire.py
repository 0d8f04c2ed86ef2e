"""The events that vLLM and SGLang publish, from msgpack to structs. No I/O.

A message holds a batch: ``[time, events, rank]``, in newer versions of vLLM a map of these. Each
event is an array that begins with its name, or a map with the name as its ``type``; fields are only
ever added at the end, and may be left out when they have their default.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

BlockHash: TypeAlias = int | bytes

_NAMES = frozenset({"BlockStored", "BlockRemoved", "AllBlocksCleared"})

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError)
"""What the decoder raises: for text that is none, keys that cannot be keys, and depth, too."""


class MalformedEventsError(ValueError):
    """A message is no batch of events."""


class Stored(msgspec.Struct, tag="BlockStored", gc=False):
    """Full blocks were put into the prefix cache, each continuing the one before it."""

    block_hashes: list[BlockHash]
    parent_block_hash: BlockHash | None
    """What the first of them continues; None: it begins a prompt."""
    token_ids: list[int]
    """The tokens of all of them."""
    block_size: int
    """Tokens in one of them."""
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[object] | None] | None = None
    """What else went into the hash of each: adapter, images, ``cache_salt``."""
    group_idx: int | None = None
    """Hybrid models have a cache for each kind of layer."""
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None


class Removed(msgspec.Struct, tag="BlockRemoved", gc=False):
    """Blocks were evicted."""

    block_hashes: list[BlockHash]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None


class Cleared(msgspec.Struct, tag="AllBlocksCleared", gc=False):
    """The prefix cache was emptied."""


class _StoredArray(Stored, tag="BlockStored", array_like=True, gc=False):
    pass


class _RemovedArray(Removed, tag="BlockRemoved", array_like=True, gc=False):
    pass


class _ClearedArray(Cleared, tag="AllBlocksCleared", array_like=True, gc=False):
    pass


class _Batch(msgspec.Struct):
    ts: float
    events: list[msgspec.Raw]


class _BatchArray(_Batch, array_like=True):
    pass


Event: TypeAlias = Stored | Removed | Cleared

_BATCH = msgspec.msgpack.Decoder(_Batch)
_BATCH_ARRAY = msgspec.msgpack.Decoder(_BatchArray)
_EVENT = msgspec.msgpack.Decoder(Stored | Removed | Cleared)
_EVENT_ARRAY = msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray)


def decode_batch(payload: bytes) -> list[Event]:
    """The events of a message, in their order; those of unknown names are left out.

    Raises:
        MalformedEventsError: It is no batch, or one of its events is malformed.
    """
    try:
        batch = (_BATCH if _is_map(payload) else _BATCH_ARRAY).decode(payload)
    except _UNREADABLE as error:
        msg = f"no batch of events: {error}"
        raise MalformedEventsError(msg) from error
    events = (_decode_event(raw) for raw in batch.events)
    return [event for event in events if event is not None]


def _decode_event(raw: msgspec.Raw) -> Event | None:
    try:
        event: Event = (_EVENT if _is_map(memoryview(raw)) else _EVENT_ARRAY).decode(raw)
    except _UNREADABLE as error:
        name = _name(raw)
        if not isinstance(name, str) or name in _NAMES:
            msg = f"a malformed event: {error}"
            raise MalformedEventsError(msg) from error
        return None
    if isinstance(event, Stored):
        _check(event)
    return event


def _check(event: Stored) -> None:
    size, blocks, ids = event.block_size, len(event.block_hashes), len(event.token_ids)
    if size < 1 or size * blocks != ids:
        msg = f"{ids} tokens in {blocks} blocks of {size}"
        raise MalformedEventsError(msg)
    if ids and not (min(event.token_ids) >= 0 and max(event.token_ids) < 1 << 32):
        msg = "a token id outside of 32 bits"
        raise MalformedEventsError(msg)


def _is_map(data: bytes | memoryview) -> bool:
    first = data[0] if len(data) else 0
    return 0x80 <= first <= 0x8F or first in {0xDE, 0xDF}


def _name(raw: msgspec.Raw) -> object:
    try:
        event = msgspec.msgpack.decode(raw)
    except _UNREADABLE as error:
        msg = f"a malformed event: {error}"
        raise MalformedEventsError(msg) from error
    if isinstance(event, dict):
        return event.get("type")
    return event[0] if isinstance(event, list) and event else None
