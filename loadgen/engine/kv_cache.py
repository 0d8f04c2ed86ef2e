"""What each sequence holds of the KV cache, and what it finds there of its prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.engine.block_pool import BlockPool

if TYPE_CHECKING:
    from loadgen.engine.sequence import Sequence


class KvCache:
    """The KV cache of one replica, seen by tokens and sequences.

    Args:
        tokens: Its size.
        block_tokens: Tokens in a block.
        key_tokens: Tokens that one prefix key stands for: whole blocks.

    Raises:
        ValueError: A size makes no sense.
    """

    __slots__ = (
        "_stuck",
        "block_tokens",
        "key_tokens",
        "pool",
        "prefix_hits_total",
        "prefix_queries_total",
    )

    def __init__(self, tokens: int, block_tokens: int, key_tokens: int) -> None:
        if key_tokens % block_tokens:
            raise ValueError(f"a key stands for whole blocks of {block_tokens}, not {key_tokens}")
        if tokens < block_tokens:
            raise ValueError(f"a KV cache of {tokens} tokens has no block of {block_tokens}")
        self.block_tokens = block_tokens
        self.key_tokens = key_tokens
        self.pool = BlockPool(tokens // block_tokens, key_tokens // block_tokens)
        self.prefix_queries_total = 0
        self.prefix_hits_total = 0
        self._stuck: tuple[Sequence, int, int] | None = None

    def start(self, sequence: Sequence, budget: int) -> int:
        """Find the prompt in the cache and make room for the first chunk of the rest.

        Returns:
            The tokens of the chunk; 0 when it does not fit.
        """
        return self._enter(sequence, budget)

    def reserve(self, sequence: Sequence) -> bool:
        """Make room for the whole prompt of ``sequence``, whose KV comes from elsewhere.

        What is cached here needs not come: it is in ``computed_tokens``. False when there is no
        room.
        """
        if not self._enter(sequence, sequence.goal_tokens, publish=False):
            return False
        sequence.chunk_tokens = 0
        return True

    def _enter(self, sequence: Sequence, budget: int, *, publish: bool = True) -> int:
        if self._is_stuck(sequence):
            return 0
        goal = sequence.goal_tokens
        # even when all of the prompt is there, its last block is computed: there is no other way
        # to the next token
        most_blocks = (goal - 1) // self.block_tokens
        most_units = min(goal // self.key_tokens, -(-most_blocks // self.pool.unit_blocks))
        units = self.pool.find(sequence.keys, most_units)
        unit_blocks = sum(unit.blocks for unit in units)
        cached = min(unit_blocks, most_blocks) * self.block_tokens
        chunk = min(goal - cached, budget)
        blocks = max(0, self._blocks(cached + chunk) - unit_blocks)
        if blocks > self.pool.available - self.pool.kept_blocks(units):
            self._stuck = (sequence, self.pool.available, self.pool.version)
            return 0
        self.pool.hold(units)
        sequence.units = units
        sequence.unit_blocks = sequence.held_blocks = unit_blocks
        sequence.computed_tokens = cached
        if sequence.admitted_s is None:
            sequence.cached_tokens = cached
            self.prefix_queries_total += sequence.prompt_tokens
            self.prefix_hits_total += cached
        self._schedule(sequence, chunk, blocks, publish=publish)
        return chunk

    def extend(self, sequence: Sequence, budget: int) -> bool:
        """Make room for the next chunk of a prefill under way; False when blocks are lacking."""
        chunk = min(sequence.goal_tokens - sequence.computed_tokens, budget)
        blocks = self._blocks(sequence.computed_tokens + chunk) - sequence.held_blocks
        if blocks > self.pool.available:
            return False
        self._schedule(sequence, chunk, blocks)
        return True

    def release(self, sequence: Sequence, slots: int) -> None:
        """Free what ``sequence`` holds; what is computed and has a key can be found again.

        Args:
            sequence: It.
            slots: The tokens that a sequence in decode has room for: those blocks are taken for
                all decodes together and not noted in each. 0 for a sequence in prefill.
        """
        self._publish(sequence, sequence.computed_tokens)
        held = self._blocks(slots) or sequence.held_blocks
        self.pool.release(sequence.units, held - sequence.unit_blocks)
        sequence.units = []
        sequence.unit_blocks = sequence.held_blocks = 0

    def _is_stuck(self, sequence: Sequence) -> bool:
        """Whether nothing has changed since ``sequence`` last did not fit: saves the search."""
        return (
            self._stuck is not None
            and self._stuck[0] is sequence
            and self._stuck[1] >= self.pool.available
            and self._stuck[2] == self.pool.version
        )

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def _schedule(
        self, sequence: Sequence, chunk: int, blocks: int, *, publish: bool = True
    ) -> None:
        self.pool.take(blocks)
        sequence.held_blocks += blocks
        sequence.chunk_tokens = chunk
        if publish:
            self._publish(sequence, sequence.computed_tokens + chunk)

    def _publish(self, sequence: Sequence, computed: int) -> None:
        """Let others find the units of which all tokens are computed, or will be in this step."""
        units, size = sequence.units, self.key_tokens
        if units and units[-1].blocks < self.pool.unit_blocks and len(units) * size <= computed:
            sequence.unit_blocks += self.pool.complete(units[-1])
        for key in sequence.keys[len(units) : computed // size]:
            units.append(self.pool.publish(key))
            sequence.unit_blocks += self.pool.unit_blocks
