"""What an engine says of the tokens that a request took, read from the end of its answer.

Nothing is parsed: engines write these counts near the end of a body or in one of the last events
of a stream, under names that cannot stand in generated text, because there the quotes around them
are escaped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

TAIL_BYTES = 16_384
"""So much of the end of an answer is looked at."""

_MAX_PLACES = 4
"""A stream that tells its usage again and again is followed back so far."""

_PLACES = (
    b'"usage"',  # OpenAI, Anthropic, and what is like them
    b'"meta_info"',  # SGLang
    b'"details"',  # TGI
    b'"timings"',  # llama.cpp
)
_COUNT = re.compile(
    rb'"(prompt_tokens|input_tokens|input_length|prompt_n'
    rb"|completion_tokens|output_tokens|generated_tokens|predicted_n"
    rb"|cached_tokens|cache_n|cache_read_input_tokens|cache_creation_input_tokens)"
    rb'"\s*:\s*([0-9]{1,15})(?![0-9.eE])'
)
_PROMPT = (b"prompt_tokens", b"input_tokens", b"input_length", b"prompt_n")
_OUTPUT = (b"completion_tokens", b"output_tokens", b"generated_tokens", b"predicted_n")
_CACHED = (b"cached_tokens", b"cache_read_input_tokens", b"cache_n")
_COUNTED_APART = {
    b"input_tokens": (b"cache_read_input_tokens", b"cache_creation_input_tokens"),  # Anthropic
    b"prompt_n": (b"cache_n",),  # llama.cpp
}
"""Prompt tokens that are not in the count of that name."""


class Usage(NamedTuple):
    """Tokens of one request; None where the engine did not say."""

    prompt_tokens: int | None
    """All of the prompt, cached or not."""

    output_tokens: int | None
    """Over all choices."""

    cached_tokens: int | None
    """Prompt tokens that were found in the prefix cache."""


def usage_of(data: bytes) -> Usage | None:
    """The usage told in an answer; None when it tells none.

    Args:
        data: A whole body, or the last bytes of a body or of a stream: from wherever on.
    """
    data = data[-TAIL_BYTES:]
    for place in _PLACES:
        counts: dict[bytes, int] = {}
        end = len(data)
        for _ in range(_MAX_PLACES):
            at = data.rfind(place, 0, end)
            if at < 0:
                break
            for match in _COUNT.finditer(data, at, end):
                counts.setdefault(match[1], int(match[2]))
            usage = _usage(counts)
            if usage.prompt_tokens is not None and usage.output_tokens is not None:
                return usage
            end = at
        if counts:
            return _usage(counts)
    return None


def _usage(counts: dict[bytes, int]) -> Usage:
    prompt = _first(counts, _PROMPT)
    if prompt is not None:
        for apart in _COUNTED_APART.get(next(name for name in _PROMPT if name in counts), ()):
            prompt += counts.get(apart, 0)
    return Usage(prompt, _first(counts, _OUTPUT), _first(counts, _CACHED))


def _first(counts: dict[bytes, int], names: Sequence[bytes]) -> int | None:
    for name in names:
        if name in counts:
            return counts[name]
    return None
