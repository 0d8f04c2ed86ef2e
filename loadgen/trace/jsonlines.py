"""Rows of JSON, one a line: what the JSONL formats have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from loadgen.trace.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from loadgen.trace.request import TraceRequest

Row = TypeVar("Row")


def first_keys(line: bytes) -> set[str]:
    """The keys of the JSON object in ``line``; none when it holds no object."""
    try:
        return set(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return set()


def decode_rows(
    lines: Iterable[bytes],
    source: str,
    decode: Callable[[bytes], Row],
    convert: Callable[[Row], TraceRequest | None],
) -> Iterator[TraceRequest]:
    """Decode and convert each line that is not blank.

    Args:
        lines: The lines of a file.
        source: Its name, for messages.
        decode: Makes a row of a line.
        convert: Makes a request of a row; None for a row that is none, such as a header.

    Raises:
        TraceError: A line is no JSON, or not such a row.
    """
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            request = convert(decode(line))
        except ValueError as error:  # msgspec's errors and those of the records themselves
            raise TraceError(str(error), source, number) from error
        if request is not None:
            yield request
