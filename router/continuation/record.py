"""What is known of an answer that is being streamed: enough to go on with it elsewhere."""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.continuation.pieces import Piece, Usage
    from router.continuation.reasons import Reason

_MARKS: Final = 32
_OVERHEAD_BYTES: Final = 4096
"""Of the record itself and its marks; a little more than they measure."""


class Record:
    """An answer so far.

    Text and tokens are what the engine at work has been given or has written. What the client
    has beyond that, and the engine is about to write again, is :attr:`ahead`.
    """

    __slots__ = (
        "_marks",
        "_parts",
        "ahead",
        "ahead_tokens",
        "chars",
        "created",
        "done",
        "finish",
        "ids",
        "ids_whole",
        "lag_chars",
        "model",
        "obstacle",
        "prompt_ids",
        "prompt_tokens",
        "role",
        "safe",
        "stream_id",
        "tokens",
        "usage_told",
        "whole",
    )

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self.created: float | None = None
        self.model: str | None = None
        self.role = False
        """Whether the client was told who speaks."""
        self._parts: list[str] = []
        self.chars = 0
        self.ahead = ""
        self.ahead_tokens = 0
        """How many tokens that had, when it was written first."""
        self.lag_chars = 0
        """So many characters of its tokens the engine at work holds back."""
        self.ids = array("I")
        self.ids_whole = True
        """Whether :attr:`ids` are all tokens of the answer so far."""
        self.tokens = 0
        """How many tokens the answer has so far."""
        self.safe = (0, 0)
        """Characters and tokens up to which text and tokens are known to be the same: after a
        token of its own that added text, so that no character is half in."""
        self._marks: deque[tuple[int, int]] = deque([(0, 0)], maxlen=_MARKS)
        self.prompt_ids: bytes | None = None
        """JSON of the prompt's tokens."""
        self.prompt_tokens: int | None = None
        """Length of the client's own prompt, once it is known."""
        self.finish: str | None = None
        """Why the answer ended, if the client was told."""
        self.usage_told = False
        """Whether the client was told the usage."""
        self.whole: bool | None = None
        """Whether each event holds all of the answer so far; None as long as there was but one."""
        self.done = False
        """Whether the client was told that nothing more comes."""
        self.obstacle: Reason | None = None
        """What in the answer cannot be handed to another replica."""

    @property
    def text(self) -> str:
        """The text of the answer so far, without :attr:`ahead`."""
        self.compact()
        return self._parts[0] if self._parts else ""

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return _OVERHEAD_BYTES + 2 * self.chars + 4 * len(self.ids) + len(self.prompt_ids or b"")

    def compact(self) -> None:
        """Put the pieces of the text together: each by itself takes more than its letters."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]

    def take(self, piece: Piece) -> None:
        """Add what an event says."""
        if self.stream_id is None:
            self.stream_id, self.created, self.model = piece.stream_id, piece.created, piece.model
        if piece.prompt_ids is not None:
            self.know_prompt(piece.prompt_ids)
        self.role = self.role or piece.role
        self.whole = piece.whole if self.whole is None else self.whole
        self.obstacle = self.obstacle or piece.obstacle
        self.finish = piece.finish or self.finish
        if piece.tokens or piece.text:
            self.add(piece.text, piece.ids, piece.tokens)
        if piece.usage is not None:
            self._told(piece.usage)

    def behind_lag(self) -> tuple[int, int] | None:
        """Where a token ends of which the client has all, though the engine holds text back.

        Returns:
            Characters and tokens; None if that is not known. The next character is one byte, so no
            token before it ends inside of one.
        """
        text, lag = self.text, self.lag_chars
        if not lag or self.ahead:
            return None
        for at, tokens in reversed(self._marks):
            if not tokens:
                return 0, 0
            if at and at + lag < len(text) and text[at + lag].isascii():
                return at + lag, tokens
        return None

    def know_prompt(self, ids: bytes) -> None:
        """Remember the tokens of the client's prompt.

        Args:
            ids: Their JSON.
        """
        self.prompt_ids = ids
        self.prompt_tokens = ids.count(b",") + 1

    def add(self, text: str, ids: list[int] | None, tokens: int) -> None:
        """Add text and the tokens that it came with."""
        if text:
            self._parts.append(text)
            self.chars += len(text)
        if ids is None:
            self.ids_whole = False
        else:
            self.ids.extend(ids)
        self.tokens += tokens
        if text and tokens == 1:
            self.safe = (self.chars, self.tokens)
        self._marks.append((self.chars, self.tokens))

    def cut(self, chars: int, tokens: int) -> None:
        """Go back to the first ``chars`` characters and ``tokens`` tokens; the rest is ahead."""
        text = self.text
        self.ahead = text[chars:] + self.ahead
        self.ahead_tokens += self.tokens - tokens
        self._parts = [text[:chars]]
        self.chars = chars
        del self.ids[tokens:]
        self.tokens = tokens
        self.safe = min(self.safe, (chars, tokens))
        self._marks.clear()
        self._marks.append((chars, tokens))

    def settle(self) -> None:
        """Nobody writes again what is ahead: count it, and its tokens, as written."""
        self.tokens += self.ahead_tokens
        self.overtake()

    def overtake(self) -> None:
        """The engine at work wrote something else than what is ahead: count that as its text."""
        if self.ahead:
            self._parts.append(self.ahead)
            self.chars += len(self.ahead)
            self.ids_whole = False
            self._marks.append((self.chars, self.tokens))
        self.ahead, self.ahead_tokens = "", 0

    def rewrite(self, text: str, ids: list[int] | None, tokens: int) -> str | None:
        """Add text that the engine at work wrote; some of it the client may have.

        Returns:
            What is new to the client; None if it is not what the client has, and not added.
        """
        common = min(len(self.ahead), len(text))
        if self.ahead[:common] != text[:common]:
            return None
        self.add(text, ids, tokens)
        self.ahead = self.ahead[common:]
        if not self.ahead:
            self.ahead_tokens = 0
        return text[common:]

    def tokens_within(self, chars: int) -> int:
        """How many tokens the first ``chars`` characters have, told from their events.

        Only a few events back are remembered: for fewer characters the figure is too high.
        """
        lag = self.lag_chars
        fitting = [tokens for at, tokens in self._marks if not at or at + lag <= chars]
        return fitting[-1] if fitting else self._marks[0][1]

    def _told(self, usage: Usage) -> None:
        self.prompt_tokens = usage.prompt_tokens
        self.usage_told = self.finish is not None
