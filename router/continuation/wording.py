"""How the rest of a continued answer is worded, so that it reads as one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from router.continuation.events import DONE
from router.continuation.pieces import Piece
from router.continuation.wish import Api

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.continuation.record import Record
    from router.continuation.wish import Wish

DONE_EVENT: Final = b"data: " + DONE + b"\n\n"


class Wording(Protocol):
    """Words the events of one API."""

    def event(self, source: dict[str, object], piece: Piece) -> bytes:
        """The event that the client gets for one of the second stream.

        Args:
            source: The data of that; it is changed.
            piece: What it is to say: its text and its tokens are those that are new to the client.
        """

    def ending(self, finish: str | None, stop: str | None) -> bytes:
        """What ends the stream.

        Args:
            finish: Why the answer ended, in the words of the OpenAI APIs; None if it was said.
            stop: The stop string that ended it.
        """


def wording(wish: Wish, record: Record, *, crossed: bool, drops_usage: bool) -> Wording:
    """The wording for what a client asked for.

    Args:
        wish: What it asked for.
        record: What it has.
        crossed: Whether a chat goes on as a completion.
        drops_usage: Whether the engine tells the usage more often than the client wants.
    """
    if wish.api is Api.CHAT or wish.api is Api.COMPLETIONS:
        return OpenAiWording(wish, record, crossed=crossed, drops_usage=drops_usage)
    return _NATIVE[wish.api](record)


def encode(data: dict[str, object]) -> bytes:
    """An event with that data."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


class OpenAiWording:
    """Chunks of ``/v1/chat/completions`` and ``/v1/completions``."""

    def __init__(self, wish: Wish, record: Record, *, crossed: bool, drops_usage: bool) -> None:
        self._wish = wish
        self._record = record
        self._crossed = crossed
        self._drops_usage = drops_usage

    def event(self, source: dict[str, object], piece: Piece) -> bytes:
        """See :class:`Wording`."""
        first_ids = self._wish.token_ids and self._record.prompt_ids is None
        self._name(source)
        choices = source.get("choices")
        told = self._usage(source, piece, has_choices=bool(choices))
        if not first_ids:
            source.pop("prompt_token_ids", None)
        if not isinstance(choices, list) or not choices:
            return encode(source) if told or choices is None else b""
        choice = choices[0]
        if not first_ids:
            choice.pop("prompt_token_ids", None)
        if self._crossed:
            choice = choices[0] = _chat_choice(choice)
        says = self._choice(choice, piece)
        return encode(source) if says or told or piece.finish else b""

    def ending(self, finish: str | None, stop: str | None) -> bytes:
        """See :class:`Wording`."""
        record = self._record
        ending = b""
        if finish is not None:
            choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": finish}
            if self._wish.api is Api.CHAT:
                choice["delta"] = {}
            else:
                choice["text"] = ""
            if stop is not None:
                choice["stop_reason"] = stop
            ending = encode(self._name({"choices": [choice]}))
        tells = self._wish.usage and not record.usage_told and record.prompt_tokens is not None
        if tells:
            ending += encode(self._name({"choices": [], "usage": _usage(record)}))
        return ending if record.done else ending + DONE_EVENT

    def _name(self, chunk: dict[str, object]) -> dict[str, object]:
        """Let the chunk be one of the first stream."""
        record, chat = self._record, self._wish.api is Api.CHAT
        if record.stream_id is not None:
            chunk["id"] = record.stream_id
        chunk["object"] = "chat.completion.chunk" if chat else "text_completion"
        if record.created is not None:
            chunk["created"] = record.created
        if record.model is not None:
            chunk["model"] = record.model
        return chunk

    def _usage(self, chunk: dict[str, object], piece: Piece, *, has_choices: bool) -> bool:
        """Tell the usage of the whole, or nothing; returns whether."""
        if piece.usage is None:
            return False
        if has_choices and self._drops_usage and not self._wish.usage_always:
            del chunk["usage"]
            return False
        chunk["usage"] = _usage(self._record)
        return True

    def _choice(self, choice: dict[str, object], piece: Piece) -> bool:
        """Let the choice say what is new; returns whether it says anything."""
        says = bool(piece.text)
        if piece.finish is None and choice.get("finish_reason"):
            choice["finish_reason"] = None
        if self._wish.api is Api.COMPLETIONS:
            choice["text"] = piece.text
        else:
            delta = choice.get("delta")
            if isinstance(delta, dict):
                if self._record.role:
                    delta.pop("role", None)
                if "content" in delta or piece.text:
                    delta["content"] = piece.text
                says = any(delta.values())
        if not self._wish.token_ids:
            choice.pop("token_ids", None)
        elif piece.ids:
            choice["token_ids"] = piece.ids
            says = True
        return says


def _chat_choice(choice: dict[str, object]) -> dict[str, object]:
    """The choice of a chat that says what that of a completion says."""
    kept = ("finish_reason", "stop_reason", "matched_stop", "token_ids")
    changed: dict[str, object] = {"index": 0, "delta": {}, "logprobs": None}
    return changed | {name: choice[name] for name in kept if name in choice}


def _usage(record: Record) -> dict[str, object]:
    prompt_tokens = record.prompt_tokens or 0
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + record.tokens,
        "completion_tokens": record.tokens,
    }


class _SglangWording:
    def __init__(self, record: Record) -> None:
        self._record = record

    def event(self, source: dict[str, object], piece: Piece) -> bytes:
        record = self._record
        if not (piece.text or piece.finish):
            return b""
        meta = source.get("meta_info")
        finish = meta.get("finish_reason") if isinstance(meta, dict) else None
        if isinstance(finish, dict) and "length" in finish:
            finish["length"] = record.tokens
        if isinstance(meta, dict) and piece.finish is None:
            meta["finish_reason"] = None
        return self._event(source, meta if isinstance(meta, dict) else {}, piece)

    def ending(self, finish: str | None, stop: str | None) -> bytes:
        done = b"" if self._record.done else DONE_EVENT
        if finish is None:
            return done
        reason: dict[str, object] = {"type": finish}
        reason |= {"length": self._record.tokens} if stop is None else {"matched": stop}
        return self._event({}, {"finish_reason": reason}, Piece()) + done

    def _event(self, source: dict[str, object], meta: dict[str, object], piece: Piece) -> bytes:
        record = self._record
        source["text"] = record.text + record.ahead if record.whole else piece.text
        if record.ids_whole:
            source["output_ids"] = record.ids.tolist() if record.whole else piece.ids or []
        else:
            source.pop("output_ids", None)
        if record.stream_id is not None:
            meta["id"] = record.stream_id
        meta |= {
            "prompt_tokens": record.prompt_tokens or 0,
            "completion_tokens": record.tokens,
        }
        source["meta_info"] = meta
        return encode(source)


class _TgiWording:
    def __init__(self, record: Record) -> None:
        self._record = record

    def event(self, source: dict[str, object], piece: Piece) -> bytes:
        record = self._record
        if not (piece.text or piece.finish):
            return b""
        source["index"] = record.tokens
        token, details = source.get("token"), source.get("details")
        if isinstance(token, dict) and not token.get("special"):
            token["text"] = piece.text
        if piece.finish is None:
            source["generated_text"] = source["details"] = details = None
        elif source.get("generated_text") is not None:
            source["generated_text"] = record.text + record.ahead
        if isinstance(details, dict):
            details["generated_tokens"] = record.tokens
            details["input_length"] = record.prompt_tokens or 0
        return encode(source)

    def ending(self, finish: str | None, stop: str | None) -> bytes:
        if finish is None:
            return b""
        record = self._record
        reason = finish if stop is None else "stop_sequence"
        return encode(
            {
                "index": record.tokens,
                "token": {"id": 0, "text": "", "logprob": 0.0, "special": True},
                "generated_text": record.text + record.ahead,
                "details": {
                    "finish_reason": reason,
                    "generated_tokens": record.tokens,
                    "input_length": record.prompt_tokens or 0,
                    "seed": None,
                },
            }
        )


class _LlamacppWording:
    def __init__(self, record: Record) -> None:
        self._record = record

    def event(self, source: dict[str, object], piece: Piece) -> bytes:
        record = self._record
        if not (piece.text or piece.finish):
            return b""
        source["content"] = piece.text
        source["stop"] = piece.finish is not None
        source.pop("tokens", None)
        source.pop("prompt", None)
        source["tokens_predicted"] = record.tokens
        if record.prompt_tokens is not None:
            source["tokens_evaluated"] = record.prompt_tokens
        return encode(source)

    def ending(self, finish: str | None, stop: str | None) -> bytes:
        if finish is None:
            return b""
        return encode(
            {
                "index": 0,
                "content": "",
                "stop": True,
                "stop_type": "limit" if stop is None else "word",
                "stopping_word": stop or "",
                "tokens_predicted": self._record.tokens,
                "tokens_evaluated": self._record.prompt_tokens or 0,
            }
        )


_NATIVE: Final[dict[Api, Callable[[Record], Wording]]] = {
    Api.SGLANG: _SglangWording,
    Api.TGI: _TgiWording,
    Api.LLAMACPP: _LlamacppWording,
}
