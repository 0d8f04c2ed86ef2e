"""The request that goes on with a broken answer on another replica.

By tokens where the engine tells them and takes them: the prompt's tokens and the answer's so far
are the prompt of ``/v1/completions``, and the seam cannot be seen. By text elsewhere: the answer
so far is the beginning of the assistant's message, or the end of the prompt. What is text ends
without white space, because chat templates and tokenizers treat white space before a seam in
their own ways: the engine writes it again, and the client does not get it twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from router.api.fields import FIELDS, Fields
from router.continuation.reasons import Reason
from router.continuation.wish import Api

if TYPE_CHECKING:
    from router.continuation.record import Record
    from router.continuation.wish import Wish

_TAKES_IDS: Final = frozenset({"vllm", "sglang"})
"""Engines that take a prompt of tokens on ``/v1/completions`` and go on behind its last one."""

_CONTINUES_CHAT: Final = frozenset({"vllm", "sglang", "tgi", "llamacpp"})
"""Engines that go on with the last message: by ``continue_final_message``, TGI always."""

_TELLS_USAGE_ALWAYS: Final = frozenset({"vllm", "sglang"})
"""Engines that take ``continuous_usage_stats``."""

_DEFAULTS: Final = frozenset({"vllm", "sglang"})
"""Engines whose default of ``max_tokens`` is a number."""

_HOLDS_BACK: Final = frozenset({"vllm"})
"""Engines that hold back as many characters as could begin a stop string."""

_NATIVE: Final = {Api.SGLANG: "sglang", Api.TGI: "tgi", Api.LLAMACPP: "llamacpp"}

LEAKS_SHOW_CHARS: Final = 512
"""An engine that goes on behind half a character writes all of the prompt before the rest of it.
An answer so far of this length shows that: no few tokens repeat so much."""

_FURTHEST_TOKENS: Final = 64
"""So many tokens at most are made again."""

_OF_CHAT_ONLY: Final = (
    *("messages", "tools", "functions", "tool_choice", "function_call", "parallel_tool_calls"),
    *("logprobs", "top_logprobs", "max_completion_tokens", "response_format", "modalities"),
    *("add_generation_prompt", "continue_final_message", "chat_template", "chat_template_kwargs"),
    *("documents", "reasoning_effort", "include_reasoning", "mm_processor_kwargs"),
    *("media_io_kwargs", "add_special_tokens", "echo"),
)
"""What a chat's body has, and that of a completion has not or with another meaning."""

_OBJECT: Final = msgspec.json.Decoder(dict[str, object])
_MESSAGES: Final = msgspec.json.Decoder(list[msgspec.Raw])

_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_NULL: Final = msgspec.Raw(b"null")
_REPLACEMENT: Final = "\ufffd"
_THOUGHT: Final = "</think>"
"""Chat templates cut what stands before it out of earlier messages."""

COMPLETIONS_PATH: Final = b"/v1/completions"


class Method(Enum):
    """How an answer goes on."""

    AGAIN = "again"
    """Nothing of it had come: the request is sent again."""
    TOKENS = "tokens"
    TEXT = "text"


@dataclass(slots=True, frozen=True)
class Resume:
    """The next request."""

    method: Method
    body: bytes
    path: bytes | None
    """Where it goes; None: where the client's request went."""

    api: Api
    """Whose stream the answer to it will be."""


@dataclass(slots=True, frozen=True)
class Finished:
    """The answer had come to its end: only that has to be said."""

    finish: str | None
    """Why it ended; None: the client was told."""

    stop: str | None = None
    """The stop string that ended it."""


def has_way(wish: Wish, engine: str | None) -> bool:
    """Whether a replica of that engine can go on in the middle of such an answer.

    Args:
        wish: What the client wants.
        engine: That of the replica; None while it is not known.
    """
    if wish.api in _NATIVE:
        return engine == _NATIVE[wish.api]
    if wish.ids_prompt and engine not in _TAKES_IDS:
        return False
    return wish.api is not Api.CHAT or engine in _CONTINUES_CHAT


def drops_usage(wish: Wish, engine: str | None) -> bool:
    """Whether a resumed answer tells its usage more often than the client asked for."""
    return wish.usage and not wish.usage_always and engine in _TELLS_USAGE_ALWAYS


def keeps_stop(wish: Wish, engine: str | None) -> bool:
    """Whether the text that ended the answer is part of it; in TGI it always is."""
    if engine == "tgi":
        return True
    return wish.untrimmed if engine == "sglang" else wish.keeps_stop and engine != "llamacpp"


def lag_chars(wish: Wish, engine: str | None) -> int:
    """So many characters of an answer's tokens the engine holds back."""
    if engine not in _HOLDS_BACK or keeps_stop(wish, engine):
        return 0
    return max(map(len, wish.stops), default=1) - 1


def first_body(wish: Wish, engine: str | None) -> tuple[bytes, bool]:
    """The body of the first request, and whether tokens are asked for in it.

    Args:
        wish: What the client wants.
        engine: That of the replica which the request goes to.
    """
    if not _may_ask_ids(wish, engine):
        return wish.body, False
    return wish.body.rstrip()[:-1] + b',"return_token_ids":true}', not wish.token_ids


def _may_ask_ids(wish: Wish, engine: str | None) -> bool:
    if wish.token_ids or not wish.plain_prompt:
        return False
    if wish.api is Api.CHAT:
        return engine == "vllm"  # SGLang refuses them in streams of chats
    return wish.api is Api.COMPLETIONS and engine in _TAKES_IDS


def plan(wish: Wish, record: Record, engine: str | None) -> Resume | Finished | Reason:
    """How to go on; cuts ``record`` to what the next engine is given.

    Args:
        wish: What the client wants.
        record: What it has.
        engine: That of the replica which is to go on.
    """
    ended = over(wish, record)
    if ended is not None:
        return ended
    if wish.api in _NATIVE and engine != _NATIVE[wish.api]:
        return Reason.ENGINE
    method, seam = Method.TOKENS, _seam_of_tokens(wish, record, engine)
    if seam is None:
        found = _seam_of_text(wish, record, engine)
        if isinstance(found, Reason):
            return found
        method, seam = Method.TEXT, found
    chars, tokens = seam
    left = _left(wish, tokens, engine)
    if left is not None and left <= 0:
        return Finished("length")
    if not chars:
        method, tokens = Method.AGAIN, 0
        record.ids_whole = True
    record.cut(chars, tokens)
    return _resume(wish, record, engine, method)


def over(wish: Wish, record: Record) -> Finished | Reason | None:
    """Whether there is nothing to go on with, whichever the engine."""
    if record.finish is not None:
        return Finished(None)
    if record.obstacle is not None:
        return record.obstacle
    if wish.stops and record.tokens >= wish.least:
        text = record.text + record.ahead
        stop = next((stop for stop in wish.stops if text.endswith(stop)), None)
        if stop is not None:
            return Finished("stop", stop)
    return None


def _seam_of_tokens(wish: Wish, record: Record, engine: str | None) -> tuple[int, int] | None:
    """Where to go on by tokens; None if that cannot be."""
    knows_prompt = bool(record.prompt_ids) or (wish.api is Api.SGLANG and wish.ids_prompt)
    knows_answer = record.ids_whole and bool(record.ids) and wish.plain_prompt
    if not (knows_prompt and knows_answer and engine in _TAKES_IDS):
        return None
    if wish.stops and not (wish.keeps_stop and engine in _HOLDS_BACK):
        return record.behind_lag() if wish.greedy else None
    chars, tokens = record.safe
    seen = chars == record.chars and not record.ahead
    if not seen and record.chars >= LEAKS_SHOW_CHARS and not record.ahead:
        return record.chars, record.tokens
    may_repeat = wish.greedy and record.tokens - tokens <= _FURTHEST_TOKENS
    return record.safe if seen or may_repeat else None


def _seam_of_text(wish: Wish, record: Record, engine: str | None) -> tuple[int, int] | Reason:
    """Where to go on by text, or why that cannot be."""
    record.settle()
    text = record.text
    chars = len(text)
    while chars and (text[chars - 1].isspace() or text[chars - 1] == _REPLACEMENT):
        chars -= 1
    if not chars:
        return 0, 0
    if wish.ids_prompt or (wish.api is Api.CHAT and engine not in _CONTINUES_CHAT):
        return Reason.ENGINE
    if wish.api is Api.CHAT and _THOUGHT in text:
        return Reason.REASONING
    return chars, record.tokens_within(chars)


def _left(wish: Wish, tokens: int, engine: str | None) -> int | None:
    """How many tokens the answer may still have; None: as many as there is room for."""
    most = wish.most
    if most is None and engine in _DEFAULTS:
        most = wish.default_most
    return None if most is None else most - tokens


def _resume(wish: Wish, record: Record, engine: str | None, method: Method) -> Resume:
    if method is Method.AGAIN:
        return Resume(method, first_body(wish, engine)[0], None, wish.api)
    fields = FIELDS.decode(wish.body)
    left = _left(wish, record.tokens, engine)
    least = max(0, wish.least - record.tokens)
    if wish.api in _NATIVE:
        _NATIVE_BODIES[wish.api](fields, record, left, least)
        return Resume(method, _encode(fields), None, wish.api)
    if wish.least:
        fields["min_tokens"] = _raw(least)
    if wish.usage and engine in _TELLS_USAGE_ALWAYS:
        fields["stream_options"] = _raw({"include_usage": True, "continuous_usage_stats": True})
    path, api = None, wish.api
    if method is Method.TOKENS:
        if api is Api.CHAT:
            path, api = COMPLETIONS_PATH, Api.COMPLETIONS
            for name in _OF_CHAT_ONLY:
                fields.pop(name, None)
        fields["max_tokens"] = _raw(left)
        fields["prompt"] = _joined_ids(record.prompt_ids or b"[]", record)
        fields["return_token_ids"] = _raw(True)
    else:
        _limit(fields, api, left)
        if api is Api.CHAT:
            _continue_chat(fields, record.text)
        else:
            fields["prompt"] = _longer(fields["prompt"], record.text)
    return Resume(method, _encode(fields), path, api)


def _limit(fields: Fields, api: Api, left: int | None) -> None:
    """Reduce the limits that the client named."""
    if left is None:
        return
    named = [name for name in _LIMITS if bytes(fields.get(name, _NULL)) != b"null"]
    for name in named if api is Api.CHAT else ("max_tokens",):
        fields[name] = _raw(left)


def _continue_chat(fields: Fields, text: str) -> None:
    """Let the last message be the answer so far, to be gone on with."""
    messages = _MESSAGES.decode(fields["messages"])
    already = bytes(fields.get("continue_final_message", _NULL)) == b"true"
    if already and messages:
        last = _OBJECT.decode(messages[-1])
        content = last.get("content")
        if isinstance(content, list):
            last["content"] = [*content, {"type": "text", "text": text}]
        else:
            last["content"] = f"{content or ''}{text}"
        messages[-1] = _raw(last)
    else:
        messages.append(_raw({"role": "assistant", "content": text}))
    fields["messages"] = _raw(messages)
    fields["add_generation_prompt"] = _raw(False)
    fields["continue_final_message"] = _raw(True)


def _continue_sglang(fields: Fields, record: Record, left: int | None, least: int) -> None:
    if bytes(fields.get("input_ids", _NULL)) != b"null":
        fields["input_ids"] = _joined_ids(bytes(fields["input_ids"]), record)
    else:
        fields["text"] = _longer(fields["text"], record.text)
    _change(fields, "sampling_params", {"max_new_tokens": left, "min_new_tokens": least})


def _continue_tgi(fields: Fields, record: Record, left: int | None, _: int) -> None:
    fields["inputs"] = _longer(fields["inputs"], record.text)
    if left is not None:
        _change(fields, "parameters", {"max_new_tokens": left})


def _continue_llamacpp(fields: Fields, record: Record, left: int | None, _: int) -> None:
    fields["prompt"] = _longer(fields["prompt"], record.text)
    if left is not None:
        fields["n_predict"] = _raw(left)


_NATIVE_BODIES: Final = {
    Api.SGLANG: _continue_sglang,
    Api.TGI: _continue_tgi,
    Api.LLAMACPP: _continue_llamacpp,
}


def _change(fields: Fields, name: str, changes: dict[str, int | None]) -> None:
    """Change what is nested in a field."""
    raw = fields.get(name, _NULL)
    nested = {} if bytes(raw) == b"null" else FIELDS.decode(raw)
    nested.update({key: _raw(value) for key, value in changes.items()})
    fields[name] = _raw(nested)


def _longer(prompt: msgspec.Raw, text: str) -> msgspec.Raw:
    """``prompt``, the JSON of a text, with ``text`` behind it."""
    return msgspec.Raw(bytes(prompt)[:-1] + msgspec.json.encode(text)[1:])


def _joined_ids(prompt: bytes, record: Record) -> msgspec.Raw:
    """The tokens of the prompt and of the answer so far, as a JSON array."""
    return msgspec.Raw(prompt.rstrip()[:-1] + b"," + _encode(record.ids.tolist())[1:])


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


_encode = msgspec.json.encode
