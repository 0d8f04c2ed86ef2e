"""What stands between a stream and its client, so that the stream can be continued if it breaks.

Nothing is read as long as nothing breaks: whole events are passed on, and their bytes are
remembered, packed when they grow many. Half an event is held back until its other half comes, so
that the client never has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from zlib import compress, decompress

from router.continuation.bulk import absorb
from router.continuation.events import DONE, payload, split, whole_until
from router.continuation.pieces import Reader, UnreadableEventError
from router.continuation.reasons import Reason
from router.continuation.record import Record

if TYPE_CHECKING:
    from router.continuation.budget import Budget
    from router.continuation.wish import Api

MAX_EVENT_BYTES: Final = 1 << 20
"""Half an event longer than this is passed on, and the stream cannot be continued any more."""

PACK_AT_BYTES: Final = 32 * 1024
"""So many bytes of events are packed at a time when the budget is scarce. The events of a stream
differ in so little that one takes ten to fifteen bytes then."""

UNPACKED_BYTES: Final = 256 * 1024
"""So many are remembered as they came otherwise: most answers are shorter and cost no packing."""

_UNPACKED_EVENTS: Final = 4
"""The last reads are left as they came: the end of an answer is looked for in them."""

_BLOCK_BYTES: Final = 8 * 1024
"""What is taken from the budget at a time."""

_END: Final = b"\n\n"
_NEWLINE: Final = 10  # as a number: ``in`` looks for bytes four times as long
_UNFINISHED: Final = b'"finish_reason":null'
"""In an event of the OpenAI APIs that is not the last. A string cannot look like it: its quotes are
escaped."""
_DONE_END: Final = b"[DONE]\n\n"
_ERROR: Final = b'{"error"'
_ABORT: Final = b':"abort"'

_OVERHEAD_BYTES: Final = 2048
"""Of the tap itself, its record and the objects that hold the bytes."""

_IDS: Final = b'token_ids":['
_TOKEN_IDS: Final = re.compile(rb'token_ids":\[[0-9, ]*\]')
"""The tokens of a chunk or a prompt. A string cannot look like it: its quotes are escaped."""
_NO_IDS: Final = b'token_ids":null'


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
        "_end_without_ids",
        "_from_end",
        "_kept",
        "_kept_bytes",
        "_packed",
        "_packed_bytes",
        "_reader",
        "_rest",
        "_room",
        "_stream_bytes",
        "_strips_ids",
        "_taken",
        "_unpacked_bytes",
        "_until_end",
        "_usual_end",
        "_usual_ids",
        "broken",
        "ended",
        "lost",
        "record",
    )

    def __init__(self, api: Api, *, strips_ids: bool, budget: Budget, stream_bytes: int) -> None:
        self.record = Record()
        """What was passed on, once :meth:`settle` was called."""
        self.broken = False
        """Whether an event told that the engine gave up. That event is not passed on."""
        self.ended = False
        """A first stream ends with its replica's."""
        self.lost: Reason | None = None
        """Why the stream cannot be continued any more, if so."""
        self._reader = Reader(api)
        self._strips_ids = strips_ids
        self._budget = budget
        self._stream_bytes = stream_bytes
        self._rest = b""
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._packed: list[bytes] = []
        self._packed_bytes = 0
        self._room = 0
        self._taken = 0
        self._usual_end: bytes | None = None
        """How an event ends that is not the last, from its finish reason on, or where its tokens
        are told, from behind these on; None until one was seen."""
        self._usual_ids = self._end_without_ids = b""
        """What stands before its tokens, from its finish reason on; and what the client gets in
        place of them and the end."""
        self._from_end, self._until_end = slice(0), slice(0)
        self._unpacked_bytes = min(UNPACKED_BYTES, max(stream_bytes // 2, PACK_AT_BYTES))

    def passed(self, data: bytes) -> bytes:
        """What the client gets of ``data``, the next bytes of the stream; may be nothing.

        Done for each token, so that every call counts: one event that ends, after its text, as one
        before it did which was looked at, is passed on without looking at it.
        """
        if self._strips_ids:
            text, _, end = data.rpartition(b"[")
            _, _, end = end.partition(b"]")
            if end != self._usual_end or text[self._from_end] != self._usual_ids:
                return self._pass_carefully(data)
            passed = text + self._end_without_ids
        else:
            text, passed = data[self._until_end], data
            if data[self._from_end] != self._usual_end:
                return self._pass_carefully(data)
        if _NEWLINE in text or self._rest:
            return self._pass_carefully(data)
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > self._room:
            self._make_room()
        return passed

    @property
    def unfinished(self) -> bytes:
        """The beginning of an event whose end has not come."""
        return self._rest

    @property
    def complete(self) -> bool:
        """Whether the last events that were passed on tell why the answer ended."""
        if self.lost is not None:
            return False
        reader = Reader(self._reader.api)
        events = [event for data in self._kept[-_UNPACKED_EVENTS:] for event in split(data)]
        try:
            return any(
                reader.read(data).finish is not None
                for data in map(payload, events)
                if data and data != DONE
            )
        except UnreadableEventError:
            return False

    def settle(self) -> None:
        """Read all that is remembered; :attr:`record` is true to what was passed on then."""
        raw = b"".join([*map(decompress, self._packed), *self._kept])
        self._forget()
        self._rest = b""
        if self.lost is None:
            try:
                absorb(raw, self._reader, self.record)
            except UnreadableEventError:
                self._lose(Reason.UNREADABLE_STREAM)

    def close(self) -> None:
        """Forget everything, and return what was taken from the budget."""
        self._budget.give_back(self._taken)
        self._taken = self._room = 0
        self._forget()

    # -- inside -------------------------------------------------------------------------------

    def _pass_carefully(self, data: bytes) -> bytes:
        """As :meth:`passed`, of any bytes."""
        if (
            self._rest
            or not data.endswith(_END)
            or data.find(_ERROR) >= 0  # takes a third less than ``in``
            or data.find(_ABORT) >= 0
            or data.endswith(_DONE_END)
        ):
            return self._pass_in_parts(data)
        self._keep(data)
        self._learn_end(data)
        return _without_ids(data) if self._strips_ids else data

    def _learn_end(self, data: bytes) -> None:
        """Remember how an event ends after which more will come, if ``data`` is one."""
        _, unfinished, end = data.partition(_UNFINISHED)
        if not unfinished or _UNFINISHED in end:
            return
        end = unfinished + end
        if not self._strips_ids:
            self._usual_end = end
            self._from_end, self._until_end = slice(-len(end), None), slice(-len(end))
        elif end.count(_IDS) == 1:
            at = end.index(_IDS) + len(_IDS) - 1
            self._usual_ids, self._usual_end = end[:at], end[end.index(b"]", at) + 1 :]
            self._from_end = slice(-at, None)
            self._end_without_ids = b"null" + self._usual_end

    def _pass_in_parts(self, data: bytes) -> bytes:
        if self.broken:
            return b""
        data = self._rest + data
        end = whole_until(data)
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT_BYTES:
            self._lose(Reason.UNREADABLE_STREAM)
            end, self._rest = len(data), b""
        whole = data[:end]
        if self.lost is None and (_ERROR in whole or _ABORT in whole):
            whole = self._until_broken(whole)
        elif whole and self._keep(whole) and DONE in whole and not self.complete:
            whole = self._without_done(whole)
        return _without_ids(whole) if self._strips_ids else whole

    def _keep(self, data: bytes) -> bool:
        """Remember events; returns whether they are remembered."""
        if self.lost is not None:
            return False
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > self._room:
            self._make_room()
        return self.lost is None

    def _until_broken(self, whole: bytes) -> bytes:
        """The events before the first that tells of a failure."""
        reader = Reader(self._reader.api)
        passed: list[bytes] = []
        for event in split(whole):
            data = payload(event)
            try:
                broken = bool(data) and data != DONE and reader.read(data).broken
            except UnreadableEventError:
                self._lose(Reason.UNREADABLE_STREAM)
                return whole
            if broken:
                return self._break_off(passed)
            passed.append(event)
        self._keep(whole)
        return whole

    def _without_done(self, whole: bytes) -> bytes:
        """The events before one that says that all is done, though the answer has not ended."""
        self._kept.pop()
        self._kept_bytes -= len(whole)
        events = split(whole)
        done = next((at for at, event in enumerate(events) if payload(event) == DONE), None)
        if done is None:
            self._keep(whole)  # the answer itself speaks of it
            return whole
        return self._break_off(events[:done])

    def _break_off(self, events: list[bytes]) -> bytes:
        self.broken = True
        self._rest = b""
        passed = b"".join(events)
        if passed:
            self._keep(passed)
        return passed

    def _make_room(self) -> None:
        """Pack what is remembered, or take more of the budget."""
        if self.lost is not None:
            self._forget()
            return
        unpacked_bytes = PACK_AT_BYTES if self._budget.scarce else self._unpacked_bytes
        if self._kept_bytes > unpacked_bytes:
            self._pack()
        held = self._packed_bytes + self._kept_bytes + _OVERHEAD_BYTES
        if held > self._stream_bytes:
            self._pack()
            held = self._packed_bytes + self._kept_bytes + _OVERHEAD_BYTES
        if held > self._stream_bytes:
            self._lose(Reason.STREAM_BYTES)
            return
        self._take(held + _BLOCK_BYTES)

    def _take(self, needed: int) -> None:
        """Have as much of the budget as is needed, and give back what is not."""
        if needed > self._taken or needed + 2 * _BLOCK_BYTES < self._taken:
            if not self._budget.take(needed - self._taken):
                self._lose(Reason.TOTAL_BYTES)
                return
            self._taken = needed
        self._room = self._taken - self._packed_bytes - _OVERHEAD_BYTES

    def _pack(self) -> None:
        packed = self._kept[:-_UNPACKED_EVENTS]
        if packed:
            block = compress(b"".join(packed), 1)
            self._packed.append(block)
            self._packed_bytes += len(block)
            del self._kept[:-_UNPACKED_EVENTS]
            self._kept_bytes = sum(map(len, self._kept))

    def _forget(self) -> None:
        self._kept.clear()
        self._packed.clear()
        self._kept_bytes = self._packed_bytes = 0

    def _lose(self, reason: Reason) -> None:
        self.lost = reason
        self.close()
        self._room = PACK_AT_BYTES  # what is kept from now on is forgotten that often
        self.record = Record()


def _without_ids(data: bytes) -> bytes:
    """``data`` without the tokens that its events tell."""
    at = data.rfind(_IDS)
    if at < 0:
        return data
    if data.find(_IDS, 0, at) >= 0:
        return _TOKEN_IDS.sub(_NO_IDS, data)
    return data[:at] + _NO_IDS + data[data.find(b"]", at) + 1 :]
