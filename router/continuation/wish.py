"""What a client asked for, as far as continuing the answer depends on it."""

from __future__ import annotations

from enum import Enum

import msgspec


class Api(Enum):
    """Whose request and stream it is."""

    CHAT = "chat"
    """``/v1/chat/completions``"""
    COMPLETIONS = "completions"
    """``/v1/completions``"""
    SGLANG = "sglang"
    """SGLang's own ``/generate``"""
    TGI = "tgi"
    """TGI's own ``/generate_stream``"""
    LLAMACPP = "llamacpp"
    """llama.cpp's own ``/completion``"""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One streamed request whose answer may be continued."""

    api: Api
    body: bytes
    """As the client sent it."""

    most: int | None
    """Largest number of output tokens that the client named; None: it named none."""

    default_most: int | None = None
    """What vLLM and SGLang take for it then; None: as many as there is room for."""

    least: int = 0
    """The answer does not end by itself before it has this many tokens."""

    stops: tuple[str, ...] = ()
    """Texts that end the answer."""

    keeps_stop: bool = False
    """Whether the text that ended the answer is part of it, as asked of vLLM."""

    untrimmed: bool = False
    """The same, as asked of SGLang."""

    usage: bool = False
    """Whether the last chunk is to tell the tokens used."""

    usage_always: bool = False
    """Whether each chunk is."""

    token_ids: bool = False
    """Whether the client wants to see them."""

    greedy: bool = False
    """Whether the same prompt gives the same answer again."""

    plain_prompt: bool = True
    """Whether the prompt is text, or token ids, and nothing else: no image, no tool."""

    ids_prompt: bool = False
    """Whether the client sent its prompt as token ids."""
