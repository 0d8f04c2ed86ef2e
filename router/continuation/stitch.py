"""The second stream of an answer, and any after it, made one with the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from router.continuation.events import DONE, payload, split, whole_until
from router.continuation.pieces import Reader, UnreadableEventError
from router.continuation.resume import LEAKS_SHOW_CHARS, Method
from router.continuation.seam import Seam
from router.continuation.tap import MAX_EVENT_BYTES
from router.continuation.wording import DONE_EVENT, wording

if TYPE_CHECKING:
    from router.continuation.pieces import Piece
    from router.continuation.record import Record
    from router.continuation.resume import Resume
    from router.continuation.wish import Wish

_OBJECT: Final = msgspec.json.Decoder(dict[str, object])


class Stitch:
    """Rewords a stream that goes on with an answer.

    Args:
        wish: What the client asked for.
        record: What it has; what it gets is added.
        resume: The request that the stream is the answer to.
        drops_usage: Whether the usage was asked for in each chunk for our own sake.
        keeps_stop: Whether the stop string that ends the answer is part of it.
    """

    __slots__ = (
        "_again",
        "_deferred",
        "_kept_tokens",
        "_may_leak",
        "_pending",
        "_reader",
        "_rest",
        "_seam",
        "_wish",
        "_wording",
        "broken",
        "ended",
        "record",
    )

    def __init__(
        self,
        wish: Wish,
        record: Record,
        resume: Resume,
        *,
        drops_usage: bool,
        keeps_stop: bool,
    ) -> None:
        self.record = record
        self.broken = False
        """Whether the stream is of no use any more: the engine gave up, or wrote something else
        than it should."""
        self.ended = False
        """Whether a stop string across the seam ended the answer: the engine goes on for nobody."""
        self._wish = wish
        self._again = resume.method is Method.AGAIN
        self._reader = Reader(resume.api)
        self._wording = wording(
            wish, record, crossed=resume.api is not wish.api, drops_usage=drops_usage
        )
        self._may_leak = resume.method is Method.TOKENS and record.chars >= LEAKS_SHOW_CHARS
        stops = wish.stops if record.tokens >= wish.least else ()
        self._seam = Seam(record.text, stops, keeps_stop=keeps_stop)
        self._kept_tokens = record.tokens
        self._pending = 0
        self._deferred: Piece | None = None
        self._rest = b""

    def passed(self, data: bytes) -> bytes:
        """What the client gets of ``data``, the next bytes of the stream; may be nothing."""
        data = self._rest + data
        end = whole_until(data)
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT_BYTES:
            self.broken = True
        pieces: list[bytes] = []
        for event in split(data[:end]):
            if self.broken or self.ended:
                self._rest = b""
                break
            pieces.append(self._event(event))
        return b"".join(pieces)

    # -- inside -------------------------------------------------------------------------------

    def _event(self, event: bytes) -> bytes:
        data = payload(event)
        record = self.record
        if not data:
            return event
        if data == DONE:
            record.done = record.finish is not None
            self.broken = not record.done
            return DONE_EVENT if record.done else b""
        try:
            piece = self._reader.read(data)
        except UnreadableEventError:
            self.broken = True
            return b""
        if piece.broken:
            self.broken = True
            return b""
        return self._reword(_OBJECT.decode(data), piece)

    def _reword(self, source: dict[str, object], piece: Piece) -> bytes:
        record = self.record
        if record.whole is None:
            record.whole = piece.whole
            if record.whole is None and piece.finish is None:
                self._deferred = piece
                return b""
        if self._deferred is not None:
            _put_before(self._deferred, piece)
            self._deferred = None
        if self._may_leak and piece.text:
            self._may_leak = False
            if record.text in piece.text:
                piece.text = piece.text.rpartition(record.text)[2]
        text, stop = self._seam.cross(piece.text, last=piece.finish is not None)
        self._pending += piece.tokens
        if self._seam.held:
            return b""
        tokens, self._pending = self._pending, 0
        new = self._new(text, piece.ids, tokens)
        if new is None:
            record.settle()
            record.ids_whole = False
            self.broken = True
            return b""
        piece.text = new
        self._count(piece)
        if stop is not None:
            piece.finish = None
            return self._stop(source, piece, stop)
        rewritten = self._wording.event(source, piece)
        self._note(piece)
        return rewritten

    def _new(self, text: str, ids: list[int] | None, tokens: int) -> str | None:
        """What of ``text`` the client has not; None if it has something else instead."""
        record = self.record
        if not (text or tokens):
            return ""
        new = record.rewrite(text, ids, tokens)
        if new is None and not record.ahead.strip(_BLANKS):
            common = _common(record.ahead, text)
            record.overtake()
            new = text[common:]
            record.add(new, ids, tokens)
        return new

    def _count(self, piece: Piece) -> None:
        """Believe the engine about the numbers of tokens."""
        record, usage = self.record, piece.usage
        if usage is None:
            return
        ended = piece.finish is not None or record.finish is not None
        if record.prompt_tokens is None:
            record.prompt_tokens = max(0, usage.prompt_tokens - self._kept_tokens)
        if usage.completion_tokens is not None and (ended or not record.ids_whole):
            record.tokens = self._kept_tokens + usage.completion_tokens

    def _note(self, piece: Piece) -> None:
        """Note what the client was told beside the text."""
        record = self.record
        if record.stream_id is None:
            record.stream_id, record.created, record.model = (
                piece.stream_id,
                piece.created,
                piece.model,
            )
        if self._again and piece.prompt_ids is not None:
            record.know_prompt(piece.prompt_ids)
        record.role = record.role or piece.role
        record.obstacle = record.obstacle or piece.obstacle
        record.finish = piece.finish or record.finish
        record.usage_told = record.usage_told or (
            piece.usage is not None and record.finish is not None
        )

    def _stop(self, source: dict[str, object], piece: Piece, stop: str) -> bytes:
        """A stop string across the seam is complete."""
        self.ended = True
        text = self._wording.event(source, piece) if piece.text else b""
        self._note(piece)
        ending = self._wording.ending("stop", stop)
        self.record.finish = "stop"
        self.record.done = True
        return text + ending


_BLANKS: Final = " \t\r\n\v\f\u00a0\u3000\ufffd"
"""What may be written otherwise behind a seam than it was before."""


def _put_before(first: Piece, second: Piece) -> None:
    """Let the second event say what the first says, too."""
    second.text = first.text + second.text
    second.tokens += first.tokens
    if second.ids is not None:
        second.ids = [*(first.ids or []), *second.ids]


def _common(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginning."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
