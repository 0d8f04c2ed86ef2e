"""What the simulated engine says: the next token is a function of all tokens before it.

A checksum of 64 bits is kept over the sequence (CRC-32 and Adler-32, both of which go on from
where they stopped, and in C), so a token costs O(1), and two replicas, or one that resumes an
answer half-way, say the same. The state of the checksum at the end of a block of tokens also
names that block and everything before it: it is the key of the block in the prefix cache.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Final
from zlib import adler32, crc32

from loadgen.tokens import HASHED_IDS_START, Special

if TYPE_CHECKING:
    from collections.abc import Sequence

_MASK: Final = (1 << 64) - 1
_LOW: Final = (1 << 32) - 1
_FINALIZER: Final = 0xFF51AFD7ED558CCD  # of MurmurHash3
_WORD_SHIFT: Final = 64 - (HASHED_IDS_START - 1).bit_length()
_TOKEN_BYTES: Final = 4
_WORDS: Final = tuple(pack("<I", token) for token in range(HASHED_IDS_START))

ENDS_ONCE_IN: Final = 256
"""An answer ends after each token with this chance: its length is geometric."""

LONGEST_ANSWER_TOKENS: Final = 4096
"""An answer ends at the latest where prompt and answer together reach a multiple of this."""


def start(model: str) -> int:
    """The state before the first token; each model, or adapter, speaks its own way."""
    return _after(model.encode("utf-8", "surrogatepass"), 1)


def read(state: int, tokens: Sequence[int]) -> int:
    """The state after ``tokens``."""
    return _after(_bytes(tokens), state)


def read_blocks(state: int, tokens: Sequence[int], block_tokens: int) -> tuple[int, list[int]]:
    """Read ``tokens`` from their beginning.

    Returns:
        The state after them, and the keys of the full blocks of ``block_tokens`` tokens.
    """
    data = memoryview(_bytes(tokens))
    size = block_tokens * _TOKEN_BYTES
    full = len(data) - len(data) % size
    keys = []
    for at in range(0, full, size):
        state = _after(data[at : at + size], state)
        keys.append(state)
    return _after(data[full:], state), keys


def _bytes(tokens: Sequence[int]) -> bytes:
    return pack(f"<{len(tokens)}I", *tokens)


def _after(data: bytes | memoryview, state: int) -> int:
    return crc32(data, state >> 32) << 32 | adler32(data, state & _LOW)


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
    crc, adler = state >> 32, state & _LOW
    may_end_at = position + max(least, 1)
    for at in range(position + 1, position + most + 1):
        mixed = ((crc << 32 | crc ^ adler) * _FINALIZER) & _MASK
        ends = not (mixed >> 20) % ENDS_ONCE_IN or not at % LONGEST_ANSWER_TOKENS
        if ends and at >= may_end_at:
            answer.append(Special.END_OF_TEXT)
            break
        token = mixed >> _WORD_SHIFT
        answer.append(token)
        crc, adler = crc32(_WORDS[token], crc), adler32(_WORDS[token], adler)
    return answer
