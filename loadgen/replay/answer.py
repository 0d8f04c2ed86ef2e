"""What one streamed answer says, event by event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.replay.sse import EventReader

if TYPE_CHECKING:
    from array import array

_DONE = b"[DONE]"
_BROKEN_OFF = frozenset({"abort", "error"})
"""Finish reasons with which engines say, inside a 200 stream, that they gave up."""


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    def has_token(self) -> bool:
        """Whether anything was generated; the opening chunk with the role has nothing."""
        if self.text:
            return True
        delta = self.delta
        return delta is not None and bool(
            delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls
        )


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """The server's own count of tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens found in the prefix cache; None when the server does not say."""
        details = self.prompt_tokens_details
        return None if details is None else details.cached_tokens


class _Event(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: object = None


_decode = msgspec.json.Decoder(_Event).decode


class StreamedAnswer:
    """The state of one streamed answer.

    Args:
        gaps_s: Takes the gap before each event with tokens but the first. Events that came in one
            read share its time.
    """

    __slots__ = (
        "_events",
        "_gaps_s",
        "_last_token_s",
        "done_s",
        "error",
        "finished",
        "first_token_s",
        "malformed",
        "token_events",
        "usage",
    )

    def __init__(self, gaps_s: array[float]) -> None:
        self._events = EventReader()
        self._gaps_s = gaps_s
        self._last_token_s = 0.0
        self.first_token_s: float | None = None
        """When the first event with a token came."""
        self.done_s: float | None = None
        """When ``[DONE]`` came."""
        self.token_events = 0
        self.finished = False
        """Whether a finish reason came."""
        self.usage: Usage | None = None
        self.error: str | None = None
        """An error that the server reported inside the stream."""
        self.malformed: str | None = None
        """Why an event could not be understood."""

    def feed(self, read: bytes, now: float) -> None:
        """Take what was read at ``now``."""
        for data in self._events.feed(read):
            if data == _DONE:
                self.done_s = now
            else:
                self._take(data, now)

    def _take(self, data: bytes, now: float) -> None:
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            self.malformed = f"{problem}: {data[:100].decode(errors='replace')}"
            return
        if event.error is not None:
            self.error = _message(event.error)
        if event.usage is not None:
            self.usage = event.usage
        for choice in event.choices or ():
            if choice.finish_reason is not None:
                self.finished = True
                if choice.finish_reason in _BROKEN_OFF:
                    self.error = f"finish_reason {choice.finish_reason}"
            # Tokens without any text (a lone end of turn) show only in the end of the answer.
            unseen = choice.finish_reason is not None and self.first_token_s is None
            if unseen or choice.has_token():
                self._token(now)

    def _token(self, now: float) -> None:
        if self.first_token_s is None:
            self.first_token_s = now
        else:
            self._gaps_s.append(now - self._last_token_s)
        self._last_token_s = now
        self.token_events += 1


def _message(error: object) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return str(error)
