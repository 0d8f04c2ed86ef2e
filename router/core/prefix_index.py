"""What the prefix caches of the replicas hold, as far as it can be known from outside.

A prompt is a chain of block keys: equal keys mean equal text up to the end of the block. The index
is a tree of runs of such blocks, cut where prompts part; each run has the bits of the replicas
that should hold it. So a prompt is looked up once for the whole fleet, in a few steps, however long
it is and however many replicas there are. The belief rests on what was sent where and on the LRU
order in which engines evict, within each replica's real KV size; where a replica publishes its
cache events, they correct it.

Whoever holds a block holds all blocks before it: the end of a prompt is evicted first.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from router.core.prefix_runs import KEY_BYTES, KEY_MASK, RUN_BYTES, Holder, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_KV_TOKENS = 400_000
"""Taken for a replica that does not say how large its KV cache is: about what is left beside an
8B model on one 80 GB GPU, or a 70B model on four."""

BLOCKS_PER_RUN = 8
"""Runs are bounded, too, at one for so many blocks of a replica's share, whenever a prompt is sent
there: prompts of one block each would otherwise take many times the memory of long ones."""

_MAX_GROUPS = 1024


class PrefixIndex:
    """Prompt blocks believed to be cached, by replica.

    Of a block's key, which may be negative, the low 64 bits count.

    Args:
        max_blocks: Most blocks remembered over all replicas, a block that two replicas hold
            counted twice; no replica may have more than its equal share of them.
    """

    def __init__(self, *, max_blocks: int = 2_000_000) -> None:
        self.max_blocks = max_blocks
        self.clock = 0
        """Goes up by one with each use of a prompt; :meth:`retire` takes such a time."""
        self._heads: dict[int, Run] = {}
        """Runs by the key of their first block."""
        self._holders: dict[str, Holder] = {}
        self._names: dict[int, str] = {}
        self._groups: dict[int, tuple[str, ...]] = {}
        self._followed: set[str] = set()

    @property
    def blocks(self) -> int:
        """Blocks remembered over all replicas."""
        return sum(holder.blocks for holder in self._holders.values())

    @property
    def bytes(self) -> int:
        """About how much memory the index takes."""
        leases = sum(len(holder.leases) for holder in self._holders.values())
        return sys.getsizeof(self._heads) + leases * RUN_BYTES + self.blocks * KEY_BYTES

    def blocks_of(self, replica: str) -> int:
        """Blocks believed to be cached on one replica."""
        holder = self._holders.get(replica)
        return holder.blocks if holder is not None else 0

    def match(self, keys: Sequence[int], block_tokens: int) -> dict[str, int]:
        """Prompt tokens believed to be cached, by replica; those with none are left out.

        Args:
            keys: The chain of the prompt's blocks: full ones only, and none that ends with the
                prompt itself, since an engine computes at least the last token again.
            block_tokens: Prompt tokens in one of them.
        """
        found: dict[str, int] = {}
        find, at, end = self._heads.get, 0, len(keys)
        run = find(keys[0] & KEY_MASK) if end else None
        if run is None:
            return found
        holding = run.mask
        while run is not None:
            still = holding & run.mask
            if still != holding:
                found.update(dict.fromkeys(self._group(holding ^ still), at * block_tokens))
                holding = still
                if not still:
                    return found
            agreed = run.agrees(keys, at)
            at += agreed
            run = find(keys[at] & KEY_MASK) if at < end and agreed == len(run.keys) else None
        found.update(dict.fromkeys(self._group(holding), at * block_tokens))
        return found

    def sent(self, replica: str, keys: Sequence[int], block_tokens: int) -> int:
        """A prompt with these blocks was sent to a replica: they are its last used ones.

        Returns:
            The time by :attr:`clock`, to be given to :meth:`ended`.

        Raises:
            ValueError: ``block_tokens`` is less than 1.
        """
        holder = self._use(replica, keys, block_tokens, told=False)
        holder.began(self.clock)
        return self.clock

    def ended(self, replica: str, sent: int, keys: Sequence[int], block_tokens: int) -> None:
        """An answer is over, well or not.

        Engines order blocks by when the last request that used them ended. Where a replica tells
        of its cache (:meth:`follow`) this counts; elsewhere the difference is not worth the time.

        Args:
            replica: Where the prompt was sent.
            sent: What :meth:`sent` returned for it.
            keys: The prompt's blocks.
            block_tokens: As for :meth:`sent`.

        Raises:
            ValueError: As for :meth:`sent`.
        """
        holder = self._holders.get(replica)
        if holder is not None and holder.ended(sent):
            self._use(replica, keys, block_tokens, told=False)

    def stored(self, replica: str, keys: Sequence[int], block_tokens: int) -> None:
        """A replica says that it has stored the last block of this chain, and all before it.

        Raises:
            ValueError: As for :meth:`sent`.
        """
        self._use(replica, keys, block_tokens, told=True)

    def removed(self, replica: str, keys: Sequence[int]) -> None:
        """A replica says that it evicted the last block of this chain.

        What continues it is of no use to anybody then.
        """
        holder = self._holders.get(replica)
        if holder is None or not keys:
            return
        path, at = self._path(keys[:-1])
        run = self._heads.get(keys[-1] & KEY_MASK) if at == len(keys) - 1 else None
        if run is None or run.parent is not (path[-1] if path else None):
            return
        going = [run]
        for run in going:
            if run.mask & holder.bit:
                going.extend(run.children or ())
        for run in reversed(going):
            if run.mask & holder.bit:
                self._drop(holder, run)

    def follow(self, replica: str) -> None:
        """From now on a replica tells of its cache: watch which answers go on there.

        Every :meth:`sent` to it must have its :meth:`ended` from here on.
        """
        self._followed.add(replica)
        holder = self._holders.get(replica)
        if holder is None:
            self._join(replica)
        elif holder.running is None:
            holder.running = {}

    def doubt(self, replica: str) -> None:
        """Some of what it told was missed: what is known of it is belief again."""
        holder = self._holders.get(replica)
        if holder is not None:
            for lease in holder.leases.values():
                lease.told = False

    def unfollow(self, replica: str) -> None:
        """It tells of its cache no more."""
        self.doubt(replica)
        self._followed.discard(replica)
        holder = self._holders.get(replica)
        if holder is not None:
            holder.running = None

    def retire(self, replica: str, clock: int) -> None:
        """A replica has evicted something that was in use at ``clock`` or later.

        Its cache is LRU: all that was last used before is gone, too. What answers that go on read
        is in use, whenever it was sent; so nothing goes that is younger than the oldest of them.
        Nor does what the replica itself told of: others may have used it since.
        """
        holder = self._holders.get(replica)
        if holder is None:
            return
        clock = min(clock, next(iter(holder.running)) if holder.running else self.clock)
        while holder.leases and holder.end.newer.used < clock:
            oldest = holder.end.newer
            if oldest.told:
                for run in oldest.run.lineage():
                    holder.use(run, self.clock, told=True)
            else:
                self._drop(holder, oldest.run)

    def cleared(self, replica: str) -> None:
        """A replica's cache is empty; its capacity is as before."""
        holder = self._holders.get(replica)
        if holder is not None:
            while holder.leases:
                self._drop(holder, holder.end.newer.run)

    def capacity(self, replica: str, kv_tokens: int | None) -> None:
        """How many tokens a replica's KV cache holds; None: unknown, the default is taken.

        Cheap where it is known already: meant to be told with every sample.
        """
        tokens = DEFAULT_KV_TOKENS if kv_tokens is None else kv_tokens
        holder = self._holders.get(replica)
        if holder is None:
            holder = self._join(replica)
        if holder.capacity_tokens != tokens:
            holder.capacity_tokens = tokens
            self._shrink(holder)

    def forget(self, replica: str) -> None:
        """A replica died or left: nothing is known of it any more, not even its capacity."""
        self.cleared(replica)
        holder = self._holders.pop(replica, None)
        if holder is not None:
            del self._names[holder.bit]
            self._groups.clear()

    # -- inside -------------------------------------------------------------------------------

    def _use(self, replica: str, keys: Sequence[int], block_tokens: int, *, told: bool) -> Holder:
        if block_tokens < 1:
            msg = f"a block of {block_tokens} tokens"
            raise ValueError(msg)
        holder = self._holders.get(replica)
        if holder is None:
            holder = self._join(replica)
        self.clock += 1
        path, at = self._path(keys)
        if at < len(keys):
            last = path[-1] if path else None
            if last is not None and holder.may_grow(last, block_tokens, told=told):
                last.extend(keys[at:])
                holder.count(len(keys) - at, block_tokens)
            else:
                run = Run(keys[at:], block_tokens, last)
                self._heads[run.keys[0]] = run
                path.append(run)
        for run in reversed(path):
            holder.use(run, self.clock, told=told)
        self._shrink(holder)
        return holder

    def _path(self, keys: Sequence[int]) -> tuple[list[Run], int]:
        """The runs that ``keys`` begin with, the last one cut to fit, and their blocks."""
        path: list[Run] = []
        at, end = 0, len(keys)
        while at < end:
            run = self._heads.get(keys[at] & KEY_MASK)
            if run is None:
                break
            agreed = run.agrees(keys, at)
            if agreed < len(run.keys):
                self._cut(run, agreed)
            path.append(run)
            at += agreed
        return path, at

    def _cut(self, run: Run, at: int) -> Run:
        tail = run.cut(at)
        self._heads[tail.keys[0]] = tail
        for name in self._group(run.mask):
            self._holders[name].was_cut(run, tail)
        return tail

    def _shrink(self, holder: Holder) -> None:
        most_blocks = self.max_blocks // len(self._holders)
        most_runs = most_blocks // BLOCKS_PER_RUN + 1
        while len(holder.leases) > most_runs:
            self._drop(holder, holder.end.newer.run)
        while holder.blocks > most_blocks or holder.tokens > holder.capacity_tokens:
            run = holder.end.newer.run
            blocks = max(
                holder.blocks - most_blocks,
                -(-(holder.tokens - holder.capacity_tokens) // run.block_tokens),
            )
            if blocks >= len(run.keys):
                self._drop(holder, run)
            elif run.mask == holder.bit:
                del run.keys[-blocks:]
                holder.count(-blocks, run.block_tokens)
            else:
                self._drop(holder, self._cut(run, len(run.keys) - blocks))

    def _drop(self, holder: Holder, run: Run) -> None:
        holder.drop(run)
        if not run.mask:
            del self._heads[run.keys[0]]
            run.leave()

    def _join(self, replica: str) -> Holder:
        bit = 1
        while bit in self._names:
            bit <<= 1
        self._names[bit] = replica
        holder = self._holders[replica] = Holder(bit, DEFAULT_KV_TOKENS)
        if replica in self._followed:
            holder.running = {}
        for other in self._holders.values():
            self._shrink(other)
        return holder

    def _group(self, mask: int) -> tuple[str, ...]:
        """The names of the replicas in a mask; the same few masks come again and again."""
        group = self._groups.get(mask)
        if group is None:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups.clear()
            group = tuple(name for bit, name in self._names.items() if mask & bit)
            self._groups[mask] = group
        return group
