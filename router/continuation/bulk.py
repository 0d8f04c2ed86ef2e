"""Reading many events at once, when a stream broke.

A replica that dies takes hundreds of streams with it, each with hundreds of events, and all other
streams wait while they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from router.continuation.events import DONE, payload, split
from router.continuation.pieces import Chunk, UnreadableEventError, of_chunk
from router.continuation.wish import Api

if TYPE_CHECKING:
    from router.continuation.pieces import Reader
    from router.continuation.record import Record

_DATA: Final = b"data:"
_CHUNKS: Final = msgspec.json.Decoder(list[Chunk])


def absorb(raw: bytes, reader: Reader, record: Record) -> None:
    """Add what whole events say to a record.

    Args:
        raw: The events, as they came.
        reader: Of their stream.
        record: It is added to.

    Raises:
        UnreadableEventError: One of them is not what such streams consist of.
    """
    chunks = _decode(raw) if reader.api in {Api.CHAT, Api.COMPLETIONS} else None
    if chunks is not None:
        _add(chunks, record)
    else:
        _read(raw, reader, record)
    record.compact()


def _decode(raw: bytes) -> list[Chunk] | None:
    """All chunks in one go; None if the events are not of the commonest form."""
    if b"\r" in raw:
        return None
    events = [event for event in raw.split(b"\n\n") if event]
    payloads = [event[5:] for event in events if event.startswith(_DATA)]
    if len(payloads) < len(events) or (payloads and payloads[-1].strip() == DONE):
        return None
    try:
        return _CHUNKS.decode(b"[%b]" % b",".join(payloads))
    except (msgspec.DecodeError, RecursionError):
        return None


def _add(chunks: list[Chunk], record: Record) -> None:
    for chunk in chunks:
        choices = chunk.choices
        if choices and chunk.usage is None and chunk.error is None and record.stream_id:
            choice = choices[0]
            delta = choice.delta
            if not choice.finish_reason and (delta is None or delta.only_text()):
                text = choice.text if delta is None else delta.content
                ids = choice.token_ids
                if text is not None:
                    record.add(text, ids, 1 if ids is None else len(ids))
                    continue
        piece = of_chunk(chunk)
        if piece.broken:
            raise UnreadableEventError("an error was passed on")
        record.take(piece)


def _read(raw: bytes, reader: Reader, record: Record) -> None:
    for event in split(raw):
        data = payload(event)
        if data == DONE:
            record.done = record.finish is not None
        elif data:
            piece = reader.read(data)
            if piece.broken:
                raise UnreadableEventError("an error was passed on")
            record.take(piece)
