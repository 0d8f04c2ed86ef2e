"""What a model reads of a request: how much it is, and the keys of its beginning.

Prompts are not parsed: a value counts by its bytes as they came. Order is that of the common chat
templates: the system message, the tools, the conversation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from router.api.prefix import BLOCK_BYTES, BLOCK_IDS, id_keys, text_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BYTES_PER_TOKEN = 4
"""First guess; English text in common tokenizers has 3 to 5."""

ABSENT = msgspec.Raw(b"")

_TOKEN_IDS = re.compile(rb"[\s\[]*+[0-9]")
_SYSTEM_FIRST = re.compile(rb'\[\s*+\{\s*+"role"\s*+:\s*+"(?:system|developer)"')
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_IDS = msgspec.json.Decoder(list[int])
_NESTED_IDS = msgspec.json.Decoder(tuple[list[int]])
_QUOTE, _BRACKET, _BRACE = b'"[{'
_CLOSING, _SPACES = b']"', b" \t\r\n"
_MAX_CLOSING = 64
_NOTHING = memoryview(b"")
_NO_SYSTEM = (ABSENT, ABSENT)
_NO_TOOLS = frozenset({b"null", b"[]"})


def in_order(
    system: Sequence[msgspec.Raw], tools: msgspec.Raw, rest: Sequence[msgspec.Raw]
) -> list[bytes | msgspec.Raw]:
    """The values that a model reads, in its order.

    Args:
        system: Fields that hold a system prompt.
        tools: The tools that it may call.
        rest: The conversation or prompt.
    """
    following: list[bytes | msgspec.Raw] = [value for value in rest if value is not ABSENT]
    if system == _NO_SYSTEM and tools is ABSENT:
        return following
    parts: list[bytes | msgspec.Raw] = [value for value in system if value is not ABSENT]
    if tools is not ABSENT and bytes(memoryview(tools)[:5]) not in _NO_TOOLS:
        if following and _SYSTEM_FIRST.match(memoryview(following[0])):
            head, following[0] = _split_first(bytes(following[0]))
            parts.append(head)
        parts.append(tools)
    return parts + following


def read_prompt(
    parts: Sequence[bytes | msgspec.Raw],
    root: Callable[[], int] | None,
    bytes_per_token: float,
) -> tuple[int, tuple[int, ...], int]:
    """Measure a prompt, and give its beginning keys.

    Keys go by token ids where a prompt is made of them, else by text. Several prompts of token ids
    in one request have no common beginning and get none.

    Args:
        parts: What the model reads, as :func:`in_order` gives it.
        root: Makes the key before the first block; None: no keys are wanted.
        bytes_per_token: Estimate for text.

    Returns:
        Estimated prompt tokens, exact for token ids; the keys; and the prompt tokens in one block
        of these, for text an estimate, 0 where the prompt is too short for any.
    """
    tokens, of_ids, text = 0, False, _NOTHING
    for part in parts:
        text = memoryview(part)
        of_ids = _of_ids(text)
        tokens += bytes(text).count(b",") + 1 if of_ids else int(len(text) / bytes_per_token)
    if root is None:
        return tokens, (), 0
    if of_ids:
        ids = _token_ids(parts[0]) if len(parts) == 1 and len(text) > BLOCK_IDS else None
        return (tokens, (), 0) if ids is None else (tokens, id_keys(ids, root()), BLOCK_IDS)
    if len(parts) > 1:
        text = memoryview(b"".join(parts))
    if len(text) <= BLOCK_BYTES:
        return tokens, (), 0
    keys = text_keys(text[: len(text) - _closing(text)], root())
    return tokens, keys, max(1, round(BLOCK_BYTES / bytes_per_token))


def _of_ids(text: memoryview) -> bool:
    """Whether a value is token ids, in lists or not."""
    # Nearly all strings and lists of messages are told by their first bytes, which costs less.
    if len(text) > 1 and (text[0] == _QUOTE or (text[0] == _BRACKET and text[1] == _BRACE)):
        return False
    return _TOKEN_IDS.match(text) is not None


def _closing(text: memoryview) -> int:
    """How many bytes at the end close a list or a string, and would be others if it went on."""
    if text[-1] not in _CLOSING:
        return 0
    if text[-2] not in _SPACES:
        return 1
    end = bytes(text[-_MAX_CLOSING:])
    return len(end) - len(end[:-1].rstrip(_SPACES))


def _split_first(messages: bytes) -> tuple[bytes, bytes]:
    """The first message of a list, and all that follows it."""
    try:
        first = bytes(_LIST.decode(messages)[0])
    except msgspec.DecodeError:  # a replica will say so
        return b"", messages
    end = messages.index(first) + len(first)
    return messages[:end], messages[end:]


def _token_ids(value: bytes | msgspec.Raw) -> list[int] | None:
    """The ids of a prompt that is made of nothing else, alone in a list or not; else None."""
    for decode in (_IDS.decode, _NESTED_IDS.decode):
        try:
            decoded = decode(value)
        except msgspec.DecodeError:
            continue
        ids = decoded[0] if isinstance(decoded, tuple) else decoded
        return ids if min(ids) >= 0 and max(ids) < 1 << 32 else None
    return None
