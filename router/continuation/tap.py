"""What stands between a stream and its client, so that the stream can be continued if it breaks.

Nothing is parsed as long as nothing breaks: whole events are passed on and their bytes are
remembered. Only when these grow too many are they folded into the text and the tokens that they
tell. Half an event is held back until its other half comes, so that the client never has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from router.continuation.events import DONE, payload, split, whole_until
from router.continuation.pieces import Reader, UnreadableEventError
from router.continuation.reasons import Reason
from router.continuation.record import Record

if TYPE_CHECKING:
    from router.continuation.budget import Budget
    from router.continuation.wish import Api

MAX_EVENT_BYTES: Final = 1 << 20
"""Half an event longer than this is passed on, and the stream cannot be continued any more."""

FOLD_AT_BYTES: Final = 16 * 1024
"""So many bytes of events are remembered before they are folded: sixty tokens or so."""

_BLOCK_BYTES: Final = 8 * 1024
"""What is taken from the budget at a time."""

_END: Final = b"\n\n"
_DONE_END: Final = b"[DONE]\n\n"
_ERROR: Final = b'{"error"'
_ABORT: Final = b':"abort"'

_IDS: Final = b'token_ids":['
_TOKEN_IDS: Final = re.compile(rb'token_ids":\[[0-9, ]*\]')
"""The tokens of a chunk or a prompt. A string cannot look like it: its quotes are escaped."""


class Tap:
    """Passes the events of an answer's first stream on.

    Args:
        api: Whose stream it is.
        strips_ids: Whether the engine was asked for tokens that the client has not asked for.
        budget: What all streams share.
        stream_bytes: So much may be remembered of this one.
    """

    __slots__ = (
        "_budget",
        "_kept",
        "_kept_bytes",
        "_reader",
        "_rest",
        "_room",
        "_stream_bytes",
        "_strips_ids",
        "_taken",
        "broken",
        "lost",
        "record",
    )

    def __init__(self, api: Api, *, strips_ids: bool, budget: Budget, stream_bytes: int) -> None:
        self.record = Record()
        self.broken = False
        """Whether an event told that the engine gave up. That event is not passed on."""
        self.lost: Reason | None = None
        """Why the stream cannot be continued any more, if so."""
        self._reader = Reader(api)
        self._strips_ids = strips_ids
        self._budget = budget
        self._stream_bytes = stream_bytes
        self._rest = b""
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._room = 0
        self._taken = 0

    def passed(self, data: bytes) -> bytes:
        """What the client gets of ``data``, the next bytes of the stream; may be nothing."""
        if (
            self._rest
            or not data.endswith(_END)
            or _ERROR in data
            or _ABORT in data
            or data.endswith(_DONE_END)
        ):
            return self._pass_slowly(data)
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > self._room:
            self._make_room()
        if self._strips_ids and _IDS in data:
            return _TOKEN_IDS.sub(b'token_ids":null', data)
        return data

    def settle(self) -> None:
        """Read all that is remembered; :attr:`record` is true to what was passed on then."""
        self._fold()
        self._rest = b""

    def close(self) -> None:
        """Forget everything, and return what was taken from the budget."""
        self._budget.give_back(self._taken)
        self._taken = self._room = 0
        self._kept.clear()

    # -- inside -------------------------------------------------------------------------------

    def _pass_slowly(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        data = self._rest + data
        end = whole_until(data)
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT_BYTES:
            self._lose(Reason.UNREADABLE_STREAM)
            end, self._rest = len(data), b""
        whole = data[:end]
        if not whole:
            return b""
        if self.lost is None and (_ERROR in whole or _ABORT in whole or DONE in whole):
            whole = self._until_broken(whole)
        elif self.lost is None:
            self._kept.append(whole)
            self._kept_bytes += len(whole)
            if self._kept_bytes > self._room:
                self._make_room()
        return _TOKEN_IDS.sub(b'token_ids":null', whole) if self._strips_ids else whole

    def _until_broken(self, whole: bytes) -> bytes:
        """Read events one by one; returns those before one that tells of a failure."""
        self._fold()
        passed: list[bytes] = []
        for event in split(whole):
            if self._gives_up(event):
                self.broken = True
                self._rest = b""
                break
            passed.append(event)
        return b"".join(passed) if self.broken else whole

    def _gives_up(self, event: bytes) -> bool:
        """Read one event; whether it says that the engine gave up, or ends before the answer."""
        data = payload(event)
        if data == DONE:
            self.record.done = self.record.finish is not None
            return self.lost is None and not self.record.done
        if data and self.lost is None:
            try:
                piece = self._reader.read(data)
            except UnreadableEventError:
                self._lose(Reason.UNREADABLE_STREAM)
                return False
            if piece.broken:
                return True
            self.record.take(piece)
        return False

    def _make_room(self) -> None:
        """Fold what is remembered, or take more of the budget."""
        if self.lost is not None:
            self._kept.clear()
            self._kept_bytes = 0
            return
        size = self.record.size_bytes + self._kept_bytes
        if self._kept_bytes > FOLD_AT_BYTES or size > self._stream_bytes:
            self._fold()
        self._account()

    def _account(self) -> None:
        """Have as much of the budget as is needed."""
        if self.lost is not None:
            return
        size = self.record.size_bytes
        if size > self._stream_bytes:
            self._lose(Reason.STREAM_BYTES)
            return
        needed = size + self._kept_bytes + _BLOCK_BYTES
        if needed > self._taken or needed + 4 * _BLOCK_BYTES < self._taken:
            if not self._budget.take(needed - self._taken):
                self._lose(Reason.TOTAL_BYTES)
                return
            self._taken = needed
        self._room = self._taken - size

    def _fold(self) -> None:
        kept, self._kept = self._kept, []
        self._kept_bytes = 0
        if self.lost is None:
            for event in (event for data in kept for event in split(data)):
                if self._gives_up(event):
                    self._lose(Reason.UNREADABLE_STREAM)
                    break
            self.record.compact()

    def _lose(self, reason: Reason) -> None:
        self.lost = reason
        self.close()
        self.record = Record()
