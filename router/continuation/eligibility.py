"""Whether an answer could be continued, told from its request.

Told once for each streamed request, before it is sent. What the engine makes of it, and what was
streamed by the time that it breaks, is looked at later (``resume``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from router.api.fields import first
from router.continuation.bodies import Body, absent
from router.continuation.obstacles import obstacle
from router.continuation.reasons import Reason
from router.continuation.wish import Api, Wish

if TYPE_CHECKING:
    from collections.abc import Mapping

_APIS: Final = {
    b"/v1/chat/completions": Api.CHAT,
    b"/chat/completions": Api.CHAT,
    b"/v1/completions": Api.COMPLETIONS,
    b"/generate": Api.SGLANG,
    b"/generate_stream": Api.TGI,
    b"/completion": Api.LLAMACPP,
}

_LIMITS: Final = {
    Api.CHAT: ("max_completion_tokens", "max_tokens"),
    Api.COMPLETIONS: ("max_tokens",),
    Api.LLAMACPP: ("n_predict", "max_tokens"),
    Api.SGLANG: ("max_new_tokens",),
    Api.TGI: ("max_new_tokens",),
}
"""Where the largest number of output tokens stands, in the order of precedence."""

_DEFAULT_COMPLETION_TOKENS: Final = 16
"""Of ``/v1/completions`` in vLLM and SGLang, when the request does not say."""
_DEFAULT_SGLANG_TOKENS: Final = 128
"""Of SGLang's ``/generate``."""

_OTHER_PART: Final = re.compile(rb'"type"\s*:\s*"(?!text")')
"""A part of a message that is no text. Inside of a string its quotes would be escaped."""

_DECODER: Final = msgspec.json.Decoder(Body)


class _OddValueError(ValueError):
    """A field that the continuation depends on has a value that it should not have."""


def judge(path: bytes, body: bytes) -> Wish | Reason:
    """What the client wants of a streamed answer, or why that cannot be continued.

    Args:
        path: Of the request, without its query.
        body: Of the request.
    """
    api = _APIS.get(path)
    if api is None:
        return Reason.API
    try:
        parsed = _DECODER.decode(body)
        settings = _settings(api, parsed)
        wish = _wish(api, body, parsed, settings)
    except (msgspec.DecodeError, RecursionError, _OddValueError):
        return Reason.UNREADABLE_REQUEST
    return obstacle(parsed, settings) or _of_prompt(api, parsed) or wish


def _settings(api: Api, parsed: Body) -> Mapping[str, object]:
    """The sampling parameters, wherever that API has them."""
    if api is not Api.SGLANG and api is not Api.TGI:
        return parsed.settings()
    nested = parsed.sampling_params if api is Api.SGLANG else parsed.parameters
    if nested is None:
        return {}
    if not isinstance(nested, dict):
        raise _OddValueError
    return nested


def _of_prompt(api: Api, parsed: Body) -> Reason | None:
    """What stands in the way of the prompt itself: it must be one text, or the ids of one."""
    prompt = _prompt(api, parsed)
    kind = first(prompt)
    if kind == (b"[" if api is Api.CHAT else b'"'):
        return None
    if kind != b"[" or api is Api.TGI:
        return Reason.UNREADABLE_REQUEST
    inside = bytes(memoryview(prompt)[1:64]).lstrip()
    return None if inside[:1].isdigit() else Reason.BATCH


def _prompt(api: Api, parsed: Body) -> msgspec.Raw:
    if api is Api.SGLANG:
        return parsed.text if absent(parsed.input_ids) else parsed.input_ids
    if api is Api.TGI:
        return parsed.inputs
    return parsed.messages if api is Api.CHAT else parsed.prompt


def _wish(api: Api, body: bytes, parsed: Body, settings: Mapping[str, object]) -> Wish:
    get = settings.get
    options = parsed.stream_options if isinstance(parsed.stream_options, dict) else {}
    tools = not (absent(parsed.tools) and absent(parsed.functions))
    return Wish(
        api=api,
        body=body,
        most=_most(api, settings),
        default_most=_default_most(api, settings),
        least=_number(get("min_new_tokens" if api is Api.SGLANG else "min_tokens")) or 0,
        stops=_stops(get("stop")),
        keeps_stop=bool(get("include_stop_str_in_output")),
        untrimmed=bool(get("no_stop_trim")),
        usage=bool(options.get("include_usage")),
        usage_always=bool(options.get("continuous_usage_stats")),
        token_ids=bool(parsed.return_token_ids),
        greedy=get("temperature") == 0,
        ids_prompt=api is not Api.CHAT and first(_prompt(api, parsed)) == b"[",
        plain_prompt=not tools and _OTHER_PART.search(parsed.messages) is None,
    )


def _most(api: Api, settings: Mapping[str, object]) -> int | None:
    """The largest number of output tokens that the client named."""
    named = (_number(settings.get(name)) for name in _LIMITS[api])
    most = next((limit for limit in named if limit is not None), None)
    if most == -1 and api is Api.LLAMACPP:
        return None
    if most is not None and most < 1:
        raise _OddValueError
    return most


def _default_most(api: Api, settings: Mapping[str, object]) -> int | None:
    """What vLLM and SGLang take where the request says nothing; an explicit null is no limit."""
    if api is Api.COMPLETIONS and settings.get("max_tokens") is msgspec.UNSET:
        return _DEFAULT_COMPLETION_TOKENS
    if api is Api.SGLANG and "max_new_tokens" not in settings:
        return _DEFAULT_SGLANG_TOKENS
    return None


def _number(value: object) -> int | None:
    """A number of tokens, if there is one."""
    if value is None or value is msgspec.UNSET:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _OddValueError


def _stops(stop: object) -> tuple[str, ...]:
    """The stop strings."""
    if stop is None:
        return ()
    given = [stop] if isinstance(stop, str) else stop
    if not isinstance(given, list):
        raise _OddValueError
    texts = tuple(text for text in given if isinstance(text, str) and text)
    if len(texts) != len(given):
        raise _OddValueError
    return texts
