"""Request bodies, as far as the simulated replica understands them; other fields are ignored."""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from loadgen.replica.refusal import Refusal

T = TypeVar("T", bound=msgspec.Struct)

Prompt = str | list[str | int | list[int]]


class StreamOptions(msgspec.Struct):
    """``stream_options``."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """What chat and completions have in common."""

    model: str | None = None
    max_tokens: int | msgspec.UnsetType | None = msgspec.UNSET
    """An explicit null asks for as many as there is room for; nothing, for the default."""

    min_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    cache_salt: str | None = None
    kv_transfer_params: dict[str, object] | None = None
    disaggregated_params: dict[str, object] | None = None
    bootstrap_host: str | None = None
    bootstrap_port: int | None = None
    bootstrap_room: int | None = None

    @property
    def most_tokens(self) -> int | None:
        """The ``max_tokens`` that the request names, if any."""
        return None if self.max_tokens is msgspec.UNSET else self.max_tokens


class CompletionBody(Sampling, kw_only=True):
    """``POST /v1/completions``."""

    prompt: Prompt | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None
    best_of: int | None = None


class Part(msgspec.Struct):
    """One part of a message."""

    type: str = "text"
    text: str | None = None


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: object = None


class ChatBody(Sampling, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: list[Message] | None = None
    prompt_token_ids: list[int] | None = None
    """What the messages became elsewhere, as TensorRT-LLM takes it."""

    max_completion_tokens: int | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tool_choice: object = None
    response_format: object = None


class TokenizeBody(msgspec.Struct, kw_only=True):
    """``POST /tokenize``: a prompt, or the messages of a chat; llama.cpp says ``content``."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: list[Message] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """``POST /detokenize``."""

    model: str | None = None
    tokens: list[int]


class EmbeddingBody(msgspec.Struct, kw_only=True):
    """``POST /v1/embeddings``."""

    model: str | None = None
    input: Prompt
    encoding_format: str | None = None


def decode(body: bytes, kind: type[T]) -> T:
    """Read a request body.

    Raises:
        Refusal: It is not JSON (400), or a field has the wrong type.
    """
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, str(error)) from error
    except msgspec.DecodeError:
        return _decode_leniently(body, kind)


def _decode_leniently(body: bytes, kind: type[T]) -> T:
    """With Python's reader, which takes lone surrogates and NaN as the real engines do."""
    try:
        return msgspec.convert(json.loads(body), type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise Refusal(400, str(error)) from error
    except ValueError as error:
        raise Refusal(400, f"JSON decode error: {error}", "Bad Request") from error
