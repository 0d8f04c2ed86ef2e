"""What the router takes from a request's JSON body: one partial decode.

Prompts are not parsed but measured: they stay raw, and their length gives the estimate of prompt
tokens. What msgspec refuses but Python's own parser and so the replicas accept (lone surrogates,
NaN, a byte-order mark, UTF-16, fields of unexpected types) is read again, slowly, before the body
counts as malformed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, cast

import msgspec

from policies.base import RequestFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES_PER_TOKEN = 4
"""First guess; English text in common tokenizers has 3 to 5."""

_EMPTY = msgspec.Raw(b"")
_TOKEN_IDS = re.compile(rb"[\s\[]*+[0-9]")


class MalformedBodyError(ValueError):
    """A body is not the JSON object that it should be."""


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: float | None = None
    max_completion_tokens: float | None = None
    max_output_tokens: float | None = None
    max_new_tokens: float | None = None
    n: float | None = None
    priority: float | None = None
    user: str | None = None
    session_id: str | None = None
    prompt_cache_key: str | None = None
    parameters: msgspec.Raw = _EMPTY
    sampling_params: msgspec.Raw = _EMPTY
    messages: msgspec.Raw = _EMPTY
    system: msgspec.Raw = _EMPTY
    tools: msgspec.Raw = _EMPTY
    prompt: msgspec.Raw = _EMPTY
    input: msgspec.Raw = _EMPTY
    inputs: msgspec.Raw = _EMPTY
    input_ids: msgspec.Raw = _EMPTY
    text: msgspec.Raw = _EMPTY
    query: msgspec.Raw = _EMPTY
    documents: msgspec.Raw = _EMPTY


_DECODER = msgspec.json.Decoder(_Body)
_NESTED_DECODER = msgspec.json.Decoder(dict[str, object])
_MODEL_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def understand_json(body: bytes, session: str | None) -> RequestFacts:
    """Read a JSON request body.

    Args:
        body: The whole body.
        session: Session key from the head; it wins over what the body names.

    Raises:
        MalformedBodyError: It is no JSON object.
    """
    try:
        parsed = _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError):
        parsed = _read_slowly(body)
    return _facts(parsed, session)


def with_model(body: bytes, model: str) -> bytes:
    """``body`` with its top-level ``model`` replaced.

    Every other value stays byte for byte, unless only Python's own parser can read the body.

    Raises:
        MalformedBodyError: It is no JSON object.
    """
    try:
        fields = _MODEL_DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return json.dumps({**_load(body), "model": model}).encode()
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def _load(body: bytes) -> dict[str, object]:
    try:
        loaded = json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"The body is not valid JSON: {error}."
        raise MalformedBodyError(msg) from error
    if not isinstance(loaded, dict):
        msg = "The body is not a JSON object."
        raise MalformedBodyError(msg)
    return loaded


def _read_slowly(body: bytes) -> _Body:
    loaded = _load(body)
    parsed = _Body()
    for field in _Body.__struct_fields__:
        value = loaded.get(field)
        current = getattr(parsed, field)
        if isinstance(current, msgspec.Raw):
            if value is not None:
                setattr(parsed, field, msgspec.Raw(json.dumps(value).encode()))
        elif field == "stream":
            parsed.stream = bool(value)
        elif _fits(field, value):
            setattr(parsed, field, value)
    return parsed


def _fits(field: str, value: object) -> bool:
    if field in {"model", "user", "session_id", "prompt_cache_key"}:
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _facts(parsed: _Body, session: str | None) -> RequestFacts:
    limit = _max_tokens(parsed)
    choices = 1
    if parsed.n is not None:
        choices = max(1, _whole(parsed.n) or 1)
        limit = None if limit is None else limit * choices
    return RequestFacts(
        model=parsed.model,
        prompt_tokens=_prompt_tokens(parsed),
        max_output_tokens=limit,
        session=session or parsed.session_id or parsed.prompt_cache_key or parsed.user,
        priority=0 if parsed.priority is None else _whole(parsed.priority) or 0,
        streamed=parsed.stream is True,
        choices=choices,
    )


def _max_tokens(parsed: _Body) -> int | None:
    for limit in (
        parsed.max_completion_tokens,
        parsed.max_tokens,
        parsed.max_output_tokens,
        parsed.max_new_tokens,
    ):
        if limit is not None:
            return _whole(limit)
    for nested in (parsed.parameters, parsed.sampling_params):
        if nested is not _EMPTY:
            return _nested_max_tokens(nested)
    return None


def _nested_max_tokens(raw: msgspec.Raw) -> int | None:
    """TGI's ``parameters`` and SGLang's ``sampling_params`` hold ``max_new_tokens``."""
    try:
        fields: Mapping[str, object] = _NESTED_DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    value = fields.get("max_new_tokens")
    return _whole(cast("float", value)) if _fits("max_new_tokens", value) else None


def _whole(value: float) -> int | None:
    """A number as an integer; None for what is absurd."""
    return int(value) if -(2**53) < value < 2**53 else None


def _prompt_tokens(parsed: _Body) -> int:
    """Estimated tokens of everything that the model reads."""
    tokens = 0
    for raw in (
        parsed.messages,
        parsed.prompt,
        parsed.input,
        parsed.inputs,
        parsed.input_ids,
        parsed.text,
        parsed.system,
        parsed.tools,
        parsed.query,
        parsed.documents,
    ):
        if raw is not _EMPTY:
            tokens += _tokens(raw)
    return tokens


def _tokens(raw: msgspec.Raw) -> int:
    """Estimated tokens of a raw prompt value; exact for token ids."""
    text = memoryview(raw)
    if _TOKEN_IDS.match(text):
        return bytes(text).count(b",") + 1
    return len(text) // BYTES_PER_TOKEN
