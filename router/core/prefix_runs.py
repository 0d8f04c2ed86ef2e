"""Runs of prompt blocks, and the order in which one replica will evict those that it holds."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUN_BYTES = 300
"""About what a run takes beside its keys, with its lease and its places in tables."""

KEY_BYTES = 8
KEY_MASK = (1 << 64) - 1


class Run:
    """Consecutive blocks that nothing tells apart: whoever holds one of them holds all of them.

    Args:
        keys: The blocks' keys; of each, the low 64 bits count.
        block_tokens: Prompt tokens in one of them.
        parent: The run that they continue.
    """

    __slots__ = ("block_tokens", "children", "keys", "mask", "parent")

    def __init__(self, keys: Sequence[int], block_tokens: int, parent: Run | None) -> None:
        self.keys = array("Q")
        self.extend(keys)
        self.block_tokens = block_tokens
        self.parent = parent
        self.children: set[Run] | None = None
        """The runs that continue it; None for none."""
        self.mask = 0
        """The bits of the replicas that hold it."""
        if parent is not None:
            if parent.children is None:
                parent.children = set()
            parent.children.add(self)

    def extend(self, keys: Sequence[int]) -> None:
        """Put further blocks at its end."""
        self.keys.extend([key & KEY_MASK for key in keys])

    def agrees(self, keys: Sequence[int], at: int) -> int:
        """How many of its blocks are those of ``keys`` from ``at`` on; the first one is.

        Keys are chained, so that one look tells of all blocks before it.
        """
        own = self.keys
        count = min(len(own), len(keys) - at)
        if own[count - 1] == keys[at + count - 1] & KEY_MASK:
            return count
        low, high = 1, count
        while high - low > 1:
            middle = (low + high) // 2
            if own[middle - 1] == keys[at + middle - 1] & KEY_MASK:
                low = middle
            else:
                high = middle
        return low

    def cut(self, at: int) -> Run:
        """Keep the first ``at`` blocks; returns a new run of the others, held by the same."""
        tail = Run((), self.block_tokens, None)
        tail.keys, self.keys = self.keys[at:], self.keys[:at]
        tail.mask = self.mask
        tail.parent = self
        tail.children, self.children = self.children, {tail}
        for child in tail.children or ():
            child.parent = tail
        return tail

    def lineage(self) -> Iterator[Run]:
        """Itself, and what it continues, up to the beginning of prompts."""
        run: Run | None = self
        while run is not None:
            yield run
            run = run.parent

    def leave(self) -> None:
        """Be no child of its parent any more."""
        if self.parent is not None and self.parent.children is not None:
            self.parent.children.discard(self)
            self.parent.children = self.parent.children or None


class Lease:
    """That a replica holds a run; a link in the order in which it will let go."""

    __slots__ = ("newer", "older", "run", "told", "used")

    newer: Lease
    older: Lease

    def __init__(self, run: Run, used: int) -> None:
        self.run = run
        self.used = used
        """The index's clock at its last use."""
        self.told = False
        """Whether the replica itself says so."""

    def link_before(self, newer: Lease) -> None:
        """Take the place in the order right before ``newer``."""
        older = newer.older
        self.older, self.newer = older, newer
        older.newer = newer.older = self

    def unlink(self) -> None:
        """Leave the order."""
        self.older.newer, self.newer.older = self.newer, self.older


class Holder:
    """What one replica holds, from the longest unused to the last used.

    Args:
        bit: What stands for it in the masks of runs.
        capacity_tokens: What its KV cache holds.
    """

    __slots__ = ("bit", "blocks", "capacity_tokens", "end", "leases", "running", "tokens")

    def __init__(self, bit: int, capacity_tokens: int) -> None:
        self.bit = bit
        self.capacity_tokens = capacity_tokens
        self.blocks = 0
        self.tokens = 0
        self.leases: dict[Run, Lease] = {}
        self.running: dict[int, None] | None = None
        """When the prompts were sent whose answers go on, the oldest first; None: not watched."""
        self.end = Lease(Run((), 1, None), 0)
        """Closes the ring: before it is the newest lease, after it the oldest."""
        self.end.older = self.end.newer = self.end

    def began(self, clock: int) -> None:
        """A prompt was sent."""
        if self.running is not None:
            self.running[clock] = None

    def ended(self, clock: int) -> bool:
        """The answer to a prompt that was sent at ``clock`` is over; False: that is not watched."""
        return self.running is not None and self.running.pop(clock, 0) is None

    def use(self, run: Run, clock: int, *, told: bool) -> None:
        """Hold a run, and make it the last one to go."""
        lease = self.leases.get(run)
        if lease is None:
            lease = self.leases[run] = Lease(run, clock)
            run.mask |= self.bit
            self.count(len(run.keys), run.block_tokens)
        else:
            lease.unlink()
            lease.used = clock
        lease.told = lease.told or told
        lease.link_before(self.end)

    def may_grow(self, run: Run, block_tokens: int, *, told: bool) -> bool:
        """Whether a run of it may be continued in place: nothing else has a part in it."""
        if run.mask != self.bit or run.children or run.block_tokens != block_tokens:
            return False
        return self.leases[run].told == told

    def was_cut(self, run: Run, tail: Run) -> None:
        """``tail`` was cut off ``run``: it goes before it."""
        lease = self.leases[run]
        split = self.leases[tail] = Lease(tail, lease.used)
        split.told = lease.told
        split.link_before(lease)

    def drop(self, run: Run) -> None:
        """Hold a run no more."""
        self.leases.pop(run).unlink()
        run.mask ^= self.bit
        self.count(-len(run.keys), run.block_tokens)

    def count(self, blocks: int, block_tokens: int) -> None:
        """It holds so many blocks more."""
        self.blocks += blocks
        self.tokens += blocks * block_tokens
