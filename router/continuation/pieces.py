"""What one event of a stream says, whichever engine wrote it."""

from __future__ import annotations

from typing import Final

import msgspec

from router.continuation.reasons import Reason
from router.continuation.wish import Api

_NULL: Final = b"null"


class Usage(msgspec.Struct):
    """The ``usage`` of a chunk."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None


class Piece(msgspec.Struct):
    """What one event says."""

    text: str = ""
    """What it adds to the answer."""

    ids: list[int] | None = None
    """The tokens that it adds, if it tells them."""

    tokens: int = 0
    """How many tokens it stands for: that of its ids, else one if it has a text field."""

    finish: str | None = None
    usage: Usage | None = None
    role: bool = False
    """Whether it names the role of the speaker."""

    stream_id: str | None = None
    created: float | None = None
    model: str | None = None
    prompt_ids: bytes | None = None
    """JSON of the prompt's tokens, if it tells them."""

    obstacle: Reason | None = None
    """What in it cannot be handed to another replica."""

    broken: bool = False
    """Whether it says that the engine gave up."""

    whole: bool | None = False
    """Whether the event itself holds all of the answer so far, not only what it adds; None if
    nothing was before it, so that it cannot be told."""


class UnreadableEventError(ValueError):
    """An event is not what such streams consist of."""


class Delta(msgspec.Struct):
    """What a chunk of a chat adds."""

    role: str | None = None
    content: str | None = None
    reasoning_content: object = None
    reasoning: object = None
    tool_calls: object = None
    function_call: object = None

    def only_text(self) -> bool:
        """Whether it is text and nothing else."""
        return not (
            self.role
            or self.tool_calls
            or self.function_call
            or self.reasoning
            or self.reasoning_content
        )


class Choice(msgspec.Struct):
    """The one answer in a chunk."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: msgspec.Raw = msgspec.Raw(_NULL)


class Chunk(msgspec.Struct):
    """A chunk of the OpenAI APIs."""

    id: str | None = None
    created: float | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    prompt_token_ids: msgspec.Raw = msgspec.Raw(_NULL)
    error: object = None


class _FinishReason(msgspec.Struct):
    type: str


class _Meta(msgspec.Struct):
    id: str | None = None
    finish_reason: _FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _SglangEvent(msgspec.Struct):
    text: str | None = None
    output_ids: list[int] | None = None
    meta_info: _Meta | None = None
    error: object = None


class _TgiToken(msgspec.Struct):
    id: int
    text: str
    special: bool = False


class _TgiDetails(msgspec.Struct):
    finish_reason: str
    generated_tokens: int = 0
    input_length: int | None = None


class _TgiEvent(msgspec.Struct):
    token: _TgiToken | None = None
    generated_text: str | None = None
    details: _TgiDetails | None = None
    error: object = None


class _LlamacppEvent(msgspec.Struct):
    content: str | None = None
    stop: bool = False
    stop_type: str | None = None
    tokens_predicted: int | None = None
    tokens_evaluated: int | None = None
    error: object = None


_CHUNK: Final = msgspec.json.Decoder(Chunk)
_SGLANG: Final = msgspec.json.Decoder(_SglangEvent)
_TGI: Final = msgspec.json.Decoder(_TgiEvent)
_LLAMACPP: Final = msgspec.json.Decoder(_LlamacppEvent)

_GAVE_UP: Final = frozenset({"abort", "error"})


class Reader:
    """Reads the events of one stream, in their order.

    Args:
        api: Whose they are.
    """

    __slots__ = ("_chars", "_ids", "_tokens", "api")

    def __init__(self, api: Api) -> None:
        self.api = api
        self._chars = self._ids = self._tokens = 0

    def read(self, payload: bytes) -> Piece:
        """What the event says that has ``payload`` as its data.

        Raises:
            UnreadableEventError: It is none of that API's.
        """
        api = self.api
        try:
            if api is Api.CHAT or api is Api.COMPLETIONS:
                return of_chunk(_CHUNK.decode(payload))
            if api is Api.SGLANG:
                return self._sglang(_SGLANG.decode(payload))
            if api is Api.TGI:
                return _tgi(_TGI.decode(payload))
            return self._llamacpp(_LLAMACPP.decode(payload))
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnreadableEventError(str(error)) from error

    def _sglang(self, event: _SglangEvent) -> Piece:
        """Its events hold all of the answer so far, unless it was started so that they do not."""
        meta = event.meta_info or _Meta()
        text, ids = event.text or "", event.output_ids
        before = self._tokens
        whole = ids is None or len(ids) == meta.completion_tokens
        if whole:
            text, self._chars = text[self._chars :], len(text)
            if ids is not None:
                ids, self._ids = ids[self._ids :], len(ids)
        finish = None if meta.finish_reason is None else meta.finish_reason.type
        return Piece(
            text=text,
            ids=ids,
            tokens=self._new_tokens(meta.completion_tokens),
            finish=finish,
            usage=Usage(meta.prompt_tokens, meta.completion_tokens),
            stream_id=meta.id,
            broken=event.error is not None or finish in _GAVE_UP,
            whole=whole if before else None,
        )

    def _llamacpp(self, event: _LlamacppEvent) -> Piece:
        piece = Piece(text=event.content or "", broken=event.error is not None)
        if event.stop:
            piece.finish = event.stop_type or "stop"
        if event.tokens_predicted is not None:
            piece.tokens = self._new_tokens(event.tokens_predicted)
        elif event.content:
            piece.tokens = 1
        if event.tokens_evaluated is not None:
            piece.usage = Usage(event.tokens_evaluated, event.tokens_predicted)
        return piece

    def _new_tokens(self, so_far: int) -> int:
        new, self._tokens = max(0, so_far - self._tokens), max(so_far, self._tokens)
        return new


def of_chunk(chunk: Chunk) -> Piece:
    """What a chunk says."""
    piece = Piece(
        usage=chunk.usage,
        stream_id=chunk.id,
        created=chunk.created,
        model=chunk.model,
        prompt_ids=_ids(chunk.prompt_token_ids),
        broken=chunk.error is not None,
    )
    if not chunk.choices:
        return piece
    choice = chunk.choices[0]
    piece.prompt_ids = piece.prompt_ids or _ids(choice.prompt_token_ids)
    piece.finish = choice.finish_reason or None  # TGI writes "" until the end
    piece.broken = piece.broken or piece.finish in _GAVE_UP
    piece.ids = choice.token_ids
    text = choice.text
    if choice.delta is not None:
        text = _delta(choice.delta, piece)
    piece.text = text or ""
    if piece.ids is not None:
        piece.tokens = len(piece.ids)
    elif text is not None and (text or not piece.role):
        piece.tokens = 1
    return piece


def _delta(delta: Delta, piece: Piece) -> str | None:
    piece.role = delta.role is not None
    if delta.tool_calls or delta.function_call:
        piece.obstacle = Reason.TOOL_CALL
    elif delta.reasoning_content or delta.reasoning:
        piece.obstacle = Reason.REASONING
    return delta.content


def _ids(raw: msgspec.Raw) -> bytes | None:
    return bytes(raw) if bytes(memoryview(raw)[:1]) == b"[" else None


def _tgi(event: _TgiEvent) -> Piece:
    piece = Piece(broken=event.error is not None)
    if event.token is not None:
        piece.tokens = 1
        piece.text = "" if event.token.special else event.token.text
    if event.details is not None:
        piece.finish = event.details.finish_reason
        if event.details.input_length is not None:
            piece.usage = Usage(event.details.input_length, event.details.generated_tokens)
    elif event.generated_text is not None:
        piece.finish = "stop"
    return piece
