"""What the simulated engine says: the next token is a function of all tokens before it.

A 64-bit rolling hash is kept over the sequence, so a token costs O(1), and two replicas, or one
that resumes an answer half-way, say the same. The state of the hash at the end of a block of
tokens also names that block and everything before it: it is the key of the block in the prefix
cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

from loadgen.tokens import HASHED_IDS_START, Special

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MASK: Final = (1 << 64) - 1
_MULTIPLIER: Final = 0x5851F42D4C957F2D  # Knuth's, of MMIX
_FINALIZER: Final = 0xFF51AFD7ED558CCD  # of MurmurHash3
_WORD_SHIFT: Final = 64 - (HASHED_IDS_START - 1).bit_length()

ENDS_ONCE_IN: Final = 256
"""An answer ends after each token with this chance: its length is geometric."""

LONGEST_ANSWER_TOKENS: Final = 4096
"""An answer ends at the latest where prompt and answer together reach a multiple of this."""


def start(model: str) -> int:
    """The state before the first token; each model, or adapter, speaks its own way."""
    return crc32(model.encode("utf-8", "surrogatepass")) * _FINALIZER & _MASK


def read(state: int, tokens: Iterable[int]) -> int:
    """The state after ``tokens``."""
    for token in tokens:
        state = (state * _MULTIPLIER + token + 1) & _MASK
    return state


def read_blocks(state: int, tokens: Sequence[int], block_tokens: int) -> tuple[int, list[int]]:
    """Read ``tokens`` from their beginning.

    Returns:
        The state after them, and the keys of the full blocks of ``block_tokens`` tokens.
    """
    keys = []
    full = len(tokens) - len(tokens) % block_tokens
    for start_index in range(0, full, block_tokens):
        for token in tokens[start_index : start_index + block_tokens]:
            state = (state * _MULTIPLIER + token + 1) & _MASK
        keys.append(state)
    return read(state, tokens[full:]), keys


def write(state: int, position: int, most: int, least: int = 0) -> list[int]:
    """Write an answer.

    Args:
        state: After the prompt.
        position: Tokens in the prompt.
        most: The answer has at most this many tokens.
        least: It does not end by itself before it has this many.

    Returns:
        The tokens; the last is ``Special.END_OF_TEXT`` when the answer ended by itself.
    """
    answer: list[int] = []
    may_end_at = position + max(least, 1)
    for at in range(position + 1, position + most + 1):
        mixed = ((state ^ (state >> 32)) * _FINALIZER) & _MASK
        ends = not (mixed >> 20) % ENDS_ONCE_IN or not at % LONGEST_ANSWER_TOKENS
        if ends and at >= may_end_at:
            answer.append(Special.END_OF_TEXT)
            break
        token = mixed >> _WORD_SHIFT
        answer.append(token)
        state = (state * _MULTIPLIER + token + 1) & _MASK
    return answer
