"""The paged KV cache: which blocks are free, in use, or kept for the next request.

As in vLLM: blocks of a sequence that ends are not erased but go to the end of a queue, its last
block first; who needs a block takes unused ones first and then the head of that queue. So what
is forgotten first is what was used longest ago, and of one sequence its leaves before its root.

Full blocks that have a key can be found again by a request with the same prefix. A *unit* is the
run of blocks that one key stands for: a single block in the replica, which knows all tokens; many
blocks in a simulation whose trace names only every 512 tokens. Units are evicted block by block
from their end, so both count alike.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Unit:
    """A run of blocks in the cache."""

    __slots__ = ("blocks", "holders", "key")

    def __init__(self, key: int | None, blocks: int, holders: int) -> None:
        self.key = key
        """The hash of all tokens up to its end; None: nobody can find these blocks again."""
        self.blocks = blocks
        """How many of its blocks still hold data."""
        self.holders = holders
        """Running sequences that use it."""


class BlockPool:
    """All blocks of one replica. Every block is free, kept, or in use; never two of them."""

    __slots__ = ("_found_by", "_kept", "_twins", "blocks", "free", "kept", "unit_blocks", "version")

    def __init__(self, blocks: int, unit_blocks: int) -> None:
        self.blocks = blocks
        self.unit_blocks = unit_blocks
        """Blocks in a complete unit."""
        self.free = blocks
        """Blocks that hold nothing."""
        self.kept = 0
        """Blocks that hold data but are in no sequence: given away when free ones run out."""
        self.version = 0
        """Changes whenever a request that did not fit might fit now."""
        self._kept: OrderedDict[Unit, None] = OrderedDict()
        self._found_by: dict[int, Unit] = {}
        self._twins: dict[int, list[Unit]] = {}

    @property
    def available(self) -> int:
        """Blocks that a sequence can have."""
        return self.free + self.kept

    @property
    def in_use(self) -> int:
        """Blocks of running sequences."""
        return self.blocks - self.free - self.kept

    def find(self, keys: Sequence[int], most_units: int) -> list[Unit]:
        """The longest run of units that are there for ``keys``, from the first one on.

        At most ``most_units``; only the last may be incomplete.
        """
        found = []
        for key in islice(keys, most_units):
            unit = self._found_by.get(key)
            if unit is None:
                break
            found.append(unit)
            if unit.blocks < self.unit_blocks:
                break
        return found

    def kept_blocks(self, units: Iterable[Unit]) -> int:
        """How many blocks of ``units`` would no longer be available once they are held."""
        return sum(unit.blocks for unit in units if not unit.holders)

    def hold(self, units: Iterable[Unit]) -> None:
        """Make one more sequence use each of ``units``."""
        for unit in units:
            if not unit.holders:
                del self._kept[unit]
                self.kept -= unit.blocks
            unit.holders += 1

    def take(self, blocks: int) -> None:
        """Give blocks to a sequence; the caller has seen that they are available."""
        while self.free < blocks:
            self._forget(blocks - self.free)
        self.free -= blocks

    def publish(self, key: int) -> Unit:
        """Make a unit of blocks in use, all of them computed, and let it be found by ``key``."""
        unit = Unit(key, self.unit_blocks, 1)
        self._let_find(unit)
        self.version += 1
        return unit

    def complete(self, unit: Unit) -> int:
        """A sequence has computed the blocks that ``unit`` had lost.

        Returns:
            How many of the sequence's own blocks became the unit's: none when another sequence
            was faster.
        """
        moved = self.unit_blocks - unit.blocks
        unit.blocks = self.unit_blocks
        self.version += 1
        return moved

    def release(self, units: Sequence[Unit], own_blocks: int) -> None:
        """Take back what a sequence held: its units in their order, and its unnamed blocks."""
        if own_blocks:
            self._keep(Unit(None, own_blocks, 0))
        for unit in reversed(units):
            unit.holders -= 1
            if not unit.holders:
                self._keep(unit)
        self.version += 1

    def _let_find(self, unit: Unit) -> None:
        """Of several units with one key, the first is found, unless a later one is more complete.

        There are several when two sequences compute the same prefix at the same time.
        """
        key = unit.key
        if key is None:
            return
        known = self._found_by.setdefault(key, unit)
        if known is not unit:
            if known.blocks < unit.blocks:
                self._found_by[key], unit = unit, known
            self._twins.setdefault(key, []).append(unit)

    def _let_go(self, unit: Unit) -> None:
        """``unit`` is empty and must not be found any more."""
        if unit.key is None:
            return
        twins = self._twins.get(unit.key)
        if twins is None:
            del self._found_by[unit.key]
            return
        if self._found_by[unit.key] is unit:
            self._found_by[unit.key] = twins.pop(0)
        else:
            twins.remove(unit)
        if not twins:
            del self._twins[unit.key]

    def _keep(self, unit: Unit) -> None:
        self._kept[unit] = None
        self.kept += unit.blocks

    def _forget(self, blocks: int) -> None:
        """Free up to ``blocks`` blocks of the unit that comes first in the queue."""
        unit = next(iter(self._kept))
        blocks = min(blocks, unit.blocks)
        unit.blocks -= blocks
        self.kept -= blocks
        self.free += blocks
        if not unit.blocks:
            del self._kept[unit]
            self._let_go(unit)
