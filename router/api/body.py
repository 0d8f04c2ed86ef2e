"""What the router takes from a request's JSON body: one partial decode.

Prompts are not parsed but measured: they stay raw (see ``prompt``). What msgspec refuses but
Python's own parser and so the replicas accept (lone surrogates, NaN, a byte-order mark, UTF-16,
fields of unexpected types) is read again, slowly, before the body counts as malformed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import msgspec

from policies.base import RequestFacts
from router.api.prefix import root
from router.api.prompt import ABSENT, BYTES_PER_TOKEN, in_order, read_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class MalformedBodyError(ValueError):
    """A body is not the JSON object that it should be."""

    code = "invalid_body"
    """What clients are told, for programs."""


def usual_bytes_per_token(model: str | None) -> float:  # noqa: ARG001 - the same for all
    """The first guess for any model."""
    return BYTES_PER_TOKEN


class Reading(msgspec.Struct, frozen=True):
    """How bodies are read."""

    bytes_per_token: Callable[[str | None], float] = usual_bytes_per_token
    """Of a model's text: an estimate."""

    prefixes: bool = True
    """Whether prompts get keys; a policy that looks at no cache needs none."""


USUAL = Reading()


class JsonBody(msgspec.Struct, gc=False):
    """The fields of a request that the router looks at; prompts and nested values stay raw."""

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
    parameters: msgspec.Raw = ABSENT
    sampling_params: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    messages: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    inputs: msgspec.Raw = ABSENT
    input_ids: msgspec.Raw = ABSENT
    token_ids: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    query: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    cache_salt: msgspec.Raw = ABSENT
    extra_key: msgspec.Raw = ABSENT
    lora_path: msgspec.Raw = ABSENT
    chat_template: msgspec.Raw = ABSENT
    chat_template_kwargs: msgspec.Raw = ABSENT
    reasoning_effort: msgspec.Raw = ABSENT


_DECODER = msgspec.json.Decoder(JsonBody)
_NESTED_DECODER = msgspec.json.Decoder(dict[str, object])
_MODEL_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_json(body: bytes) -> JsonBody:
    """Read a JSON request body.

    Raises:
        MalformedBodyError: It is no JSON object.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _read_slowly(body)


def understand_json(
    body: JsonBody, session: str | None, tenant: str | None = None, reading: Reading = USUAL
) -> RequestFacts:
    """What routing needs to know of a request.

    Args:
        body: What was read of it.
        session: Session key from the head; it wins over what the body names.
        tenant: Whose it is, where tenants share no caches.
        reading: How to read it.
    """
    limit = _max_tokens(body)
    choices = 1
    if body.n is not None:
        choices = max(1, _whole(body.n) or 1)
        limit = None if limit is None else limit * choices
    prompt_tokens, prefix, block_tokens = read_prompt(
        _parts(body),
        (lambda: _root(body, tenant)) if reading.prefixes else None,
        reading.bytes_per_token(body.model),
    )
    return RequestFacts(
        model=body.model,
        prompt_tokens=prompt_tokens,
        max_output_tokens=limit,
        session=session or body.session_id or body.prompt_cache_key or body.user,
        priority=0 if body.priority is None else _whole(body.priority) or 0,
        streamed=body.stream is True,
        choices=choices,
        tenant=tenant,
        prefix=prefix,
        prefix_block_tokens=block_tokens,
    )


def _parts(body: JsonBody) -> Sequence[bytes | msgspec.Raw]:
    """What a model reads of it, in order."""
    prompt, system, tools = body.prompt, body.system, body.tools
    # Nearly all requests are a list of messages and nothing else.
    if (
        prompt
        is system
        is tools
        is body.instructions
        is body.input
        is body.inputs
        is body.input_ids
        is body.token_ids
        is body.text
        is body.query
        is body.documents
        is ABSENT
        is not body.messages
    ):
        return (body.messages,)
    conversation = (
        body.messages,
        prompt,
        body.input,
        body.inputs,
        body.input_ids,
        body.token_ids,
        body.text,
        body.query,
        body.documents,
    )
    return in_order((body.instructions, system), tools, conversation)


def _root(body: JsonBody, tenant: str | None) -> int:
    """What tells caches apart beside the text: who asks, which weights, and which template."""
    salt, extra, lora = body.cache_salt, body.extra_key, body.lora_path
    template, values, effort = (
        body.chat_template,
        body.chat_template_kwargs,
        body.reasoning_effort,
    )
    if salt is extra is lora is template is values is effort is ABSENT:
        return root(tenant, body.model)
    return root(tenant, body.model, salt, extra, lora, template, values, effort)


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


def _read_slowly(body: bytes) -> JsonBody:
    loaded = _load(body)
    parsed = JsonBody()
    for field in JsonBody.__struct_fields__:
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


def _max_tokens(parsed: JsonBody) -> int | None:
    for limit in (
        parsed.max_completion_tokens,
        parsed.max_tokens,
        parsed.max_output_tokens,
        parsed.max_new_tokens,
    ):
        if limit is not None:
            return _whole(limit)
    for nested in (parsed.parameters, parsed.sampling_params):
        if nested is not ABSENT:
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
