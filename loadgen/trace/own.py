r"""Pointsman's own JSONL format: one :class:`~loadgen.trace.request.TraceRequest` a line.

::

    {"format": "pointsman-trace", "version": 1}
    {"arrival_s": 0.0, "prompt_tokens": 6758, "output_tokens": 500, "hash_ids": [0, 1, 2]}
    {"arrival_s": 0.25, "prompt_tokens": 180, "output_tokens": 12, "session": "user-7"}

The header may be left out; a version above 1 is refused. ``arrival_s`` (seconds on any clock),
``prompt_tokens`` and ``output_tokens`` are needed; ``hash_ids`` (none), ``block_tokens`` (512),
``session`` (none) and ``tenant`` (none) are not. Further keys are ignored, so that a richer log is
a trace too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.trace.jsonlines import decode_rows, first_keys
from loadgen.trace.request import TraceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from loadgen.trace.request import Trace

NAME = "pointsman JSONL"
FORMAT = "pointsman-trace"
VERSION = 1


class _Header(msgspec.Struct, kw_only=True):
    format: str
    version: int


def recognises(first_line: bytes) -> bool:
    """Whether a file that begins with ``first_line`` has this format."""
    keys = first_keys(first_line)
    return {"format", "version"} <= keys or "arrival_s" in keys


def parse(lines: Iterable[bytes], source: str) -> Iterator[TraceRequest]:
    """The requests of a file, on its own clock.

    Args:
        lines: Its lines, with or without line ends.
        source: Its name, for messages.

    Raises:
        TraceError: A row is not as it should be, or the version is not known.
    """
    decoder = msgspec.json.Decoder(TraceRequest)

    def decode(line: bytes) -> TraceRequest | None:
        if b'"format"' in line and "format" in first_keys(line):
            _check(msgspec.json.decode(line, type=_Header))
            return None
        return decoder.decode(line)

    return decode_rows(lines, source, decode, lambda request: request)


def dump(trace: Trace) -> bytes:
    """``trace`` in this format, with the header. What was done to it is not kept."""
    encoder = msgspec.json.Encoder()
    rows = (_Header(format=FORMAT, version=VERSION), *trace.requests)
    return encoder.encode_lines(rows)


def _check(header: _Header) -> None:
    if header.format != FORMAT or header.version != VERSION:
        msg = (
            f"{header.format} version {header.version} is not known; "
            f"this reads {FORMAT} version {VERSION}"
        )
        raise ValueError(msg)
