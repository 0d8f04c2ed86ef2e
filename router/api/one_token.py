"""A request that makes a replica compute a prompt, and next to nothing besides."""

from __future__ import annotations

from typing import Final

import msgspec

PATHS: Final = frozenset({b"/v1/chat/completions", b"/v1/completions"})
"""Where such requests can be posted."""

_DROPPED: Final = (
    *("stream", "stream_options", "max_completion_tokens", "min_tokens", "n", "best_of"),
    *("stop", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "return_token_ids"),
    *("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice"),
    "guided_grammar",
)
"""Fields that say how to answer, and nothing of the prompt."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def one_token(body: bytes) -> bytes:
    """The same prompt, with one token asked for, unstreamed.

    Raises:
        msgspec.DecodeError: The body is no JSON object.
    """
    fields: dict[str, object] = dict(_FIELDS.decode(body))
    for name in _DROPPED:
        fields.pop(name, None)
    return msgspec.json.encode(fields | {"max_tokens": 1})
