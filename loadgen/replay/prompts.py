"""Texts of an exact number of tokens, whose shared prefixes follow the trace's hash ids."""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import TYPE_CHECKING

from loadgen.tokens import PROMPT_WORDS

if TYPE_CHECKING:
    from loadgen.trace.request import TraceRequest

_WORD_OF_BYTE = tuple(PROMPT_WORDS[byte % len(PROMPT_WORDS)] for byte in range(256))
"""One random byte chooses one word: 512 tokens cost some 20 µs."""


class PromptWriter:
    """Writes the prompts of one run.

    Each hash id stands for one fixed text of a whole block. What lies behind the whole blocks that
    have ids (the last, partial block; or all of a prompt without ids) is written for this request
    alone, so that no prefix cache can know it.

    Args:
        salt: Part of the seed of every text: other salts give other texts.
        kept_blocks: How many block texts are remembered, about 3 kB each; it changes speed only.
    """

    def __init__(self, salt: str, kept_blocks: int = 4096) -> None:
        self._salt = salt
        self._kept_blocks = kept_blocks
        self._blocks: OrderedDict[tuple[int, int], str] = OrderedDict()

    def write(self, number: int, request: TraceRequest) -> str:
        """The prompt of ``request``, which is the ``number``-th of its trace."""
        blocks = request.whole_blocks
        parts = [self._block(block, request.block_tokens) for block in blocks]
        rest_tokens = request.prompt_tokens - len(blocks) * request.block_tokens
        parts.append(self._text(f"request {number}", rest_tokens))
        return "".join(parts)

    def _block(self, block: int, tokens: int) -> str:
        key = (block, tokens)
        text = self._blocks.get(key)
        if text is None:
            text = self._blocks[key] = self._text(f"block {block}", tokens)
            if len(self._blocks) > self._kept_blocks:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(key)
        return text

    def _text(self, name: str, tokens: int) -> str:
        letters = Random(f"{self._salt} {name}").randbytes(tokens)
        return "".join([_WORD_OF_BYTE[letter] for letter in letters])
