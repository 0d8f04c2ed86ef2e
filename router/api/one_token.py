"""A request that makes a replica compute a prompt, and next to nothing besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from router.api.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

PATHS: Final = frozenset({b"/v1/chat/completions", b"/v1/completions"})
"""Where such requests can be posted."""

_DROPPED: Final = (
    *("stream", "stream_options", "max_completion_tokens", "min_tokens", "n", "best_of"),
    *("stop", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "return_token_ids"),
    *("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
    "guided_grammar",
)
"""Fields that say how to answer, and nothing of the prompt."""


def one_token(body: bytes) -> bytes:
    """The same prompt, with one token asked for, unstreamed.

    Raises:
        msgspec.DecodeError: The body is no JSON object.
    """
    return msgspec.json.encode(one_token_fields(FIELDS.decode(body)))


def one_token_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """As :func:`one_token`, of a body's fields."""
    kept = dict(fields)
    for name in _DROPPED:
        kept.pop(name, None)
    kept["max_tokens"] = 1
    return kept
