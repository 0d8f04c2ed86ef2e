"""What the cache events of one replica tell the prefix index. No I/O.

Events speak of token ids. So prompts of token ids are followed exactly, block by block. Of prompts
of text it is only known when they were sent; for these an eviction tells how far back the cache
still reaches: engines evict what was used longest ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from router.api.prefix import BLOCK_IDS, STEP_IDS, STEPS_PER_BLOCK, id_steps, root
from router.kv_events.wire import Cleared, Removed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from router.core.prefix_index import PrefixIndex
    from router.kv_events.wire import BlockHash, Event

MAX_BLOCKS = 1_000_000
"""Engine blocks remembered of one replica; more means that evictions were missed."""

_UNKNOWN = (None, 0, 0)
_LOCAL_MEDIA = frozenset({None, "GPU"})
_LOCALITIES = frozenset({None, "LOCAL"})


class _Link(msgspec.Struct, eq=False, gc=False):
    """The key of a full block of token ids, and the one before it."""

    key: int
    before: _Link | None

    def chain(self) -> tuple[int, ...]:
        """All keys from the start of the prompt to this one; the root is none of them."""
        keys: list[int] = []
        link = self
        while link.before is not None:
            keys.append(link.key)
            link = link.before
        keys.reverse()
        return tuple(keys)


class _Block(msgspec.Struct, eq=False, gc=False):
    """One block of the engine. There are tens of thousands, so it holds no token ids."""

    clock: int
    """The index's clock when it was stored."""
    link: _Link | None
    """The last full block of token ids at its end; None when its beginning is not known."""
    step: int
    """The key at its end, of the steps after ``link`` too."""
    steps: int
    """How many these are; with none, the last token of ``link`` is in this block."""
    copies: int = 1
    """Engines hold a block twice when two requests computed it at once."""


class Tracker:
    """Follows the cache of one replica.

    Args:
        index: Who is told.
        replica: The replica's name.
        model_of: The name under which requests ask for an adapter, or for the base model (None).
    """

    def __init__(
        self, index: PrefixIndex, replica: str, model_of: Callable[[str | None], str | None]
    ) -> None:
        self._index = index
        self._replica = replica
        self._model_of = model_of
        self._blocks: dict[tuple[int | None, BlockHash], _Block] = {}
        self._gone: dict[_Link, None] = {}
        self._horizon = 0
        index.follow(replica)

    @property
    def blocks(self) -> int:
        """Engine blocks known to be cached."""
        return len(self._blocks)

    def take(self, events: Iterable[Event]) -> None:
        """Take the events of one message."""
        for event in events:
            if isinstance(event, Stored):
                if _counts(event) and _attends_to_all(event.kv_cache_spec_kind):
                    self._tell_removed()
                    self._stored(event)
            elif isinstance(event, Removed):
                if _counts(event):
                    self._removed(event)
            elif isinstance(event, Cleared):
                self.cleared()
        self._tell_removed()

    def lost(self) -> None:
        """Events were missed: what is cached is not known any more, only believed."""
        self._index.doubt(self._replica)
        self._blocks.clear()
        self._gone.clear()
        self._horizon = 0

    def cleared(self) -> None:
        """The cache is empty."""
        self.lost()
        self._index.cleared(self._replica)

    # -- inside -------------------------------------------------------------------------------

    def _stored(self, event: Stored) -> None:
        if len(self._blocks) + len(event.block_hashes) > MAX_BLOCKS:
            self.lost()
        link, step, steps = self._beginning(event)
        per_block = event.block_size // STEP_IDS
        keys = id_steps(event.token_ids, step) if link is not None else ()
        first = link
        for number, block_hash in enumerate(event.block_hashes, start=1):
            if link is not None:
                step, steps = keys[number * per_block - 1], steps + per_block
                if steps == STEPS_PER_BLOCK:
                    link, steps = _Link(step, link), 0
            known = self._blocks.get((event.group_idx, block_hash))
            if known is None:
                block = _Block(self._index.clock, link, step, steps)
                self._blocks[event.group_idx, block_hash] = block
            else:
                known.copies += 1
        if link is not None and link is not first:
            self._index.stored(self._replica, link.chain(), BLOCK_IDS)

    def _beginning(self, event: Stored) -> tuple[_Link | None, int, int]:
        """Where an event goes on: the link, the step and the steps since the link."""
        if event.block_size % STEP_IDS or BLOCK_IDS % event.block_size:
            return _UNKNOWN  # where prompts part within one of our blocks could not be told
        salt = _salt(event)
        if event.parent_block_hash is not None:
            parent = self._blocks.get((event.group_idx, event.parent_block_hash))
            if parent is None or salt != b"":
                return _UNKNOWN
            return parent.link, parent.step, parent.steps
        if salt is None:
            return _UNKNOWN
        key = root(None, self._model_of(event.lora_name), salt)
        return _Link(key, None), key, 0

    def _removed(self, event: Removed) -> None:
        for block_hash in event.block_hashes:
            block = self._blocks.get((event.group_idx, block_hash))
            if block is None:
                continue
            block.copies -= 1
            if block.copies:
                continue
            del self._blocks[event.group_idx, block_hash]
            self._horizon = max(self._horizon, block.clock)
            if block.link is not None and not block.steps:
                self._gone[block.link] = None

    def _tell_removed(self) -> None:
        if self._gone:
            for link in self._gone:
                if link.before not in self._gone:  # else it goes with that one
                    self._index.removed(self._replica, link.chain())
            self._gone.clear()
        if self._horizon:
            self._index.retire(self._replica, self._horizon)
            self._horizon = 0


def _counts(event: Stored | Removed) -> bool:
    """Whether it is about the cache that prefill can use at once."""
    return event.medium in _LOCAL_MEDIA and event.locality in _LOCALITIES


def _attends_to_all(kind: str | None) -> bool:
    """Whether a kind of layer needs the whole prefix, so that its blocks tell of the prompt."""
    if kind is None:
        return True
    kind = kind.lower()
    return ("full" in kind or "mla" in kind) and "sliding" not in kind


def _salt(event: Stored) -> bytes | None:
    """The ``cache_salt`` of a prompt as JSON; None when more than that went into its hashes."""
    salts: list[object] = []
    for number, extra in enumerate(event.extra_keys or ()):
        others = [key for key in extra or () if key != event.lora_name]
        if others and number:
            return None
        salts += others
    if not salts:
        return b""
    return msgspec.json.encode(salts[0]) if len(salts) == 1 and isinstance(salts[0], str) else None
