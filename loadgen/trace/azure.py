"""The CSV format of the Azure LLM inference traces.

``TIMESTAMP,ContextTokens,GeneratedTokens``, with LF or CRLF. The traces of 2023 stamp
``2023-11-16 18:17:03.9799600`` (ticks of 100 ns), those of 2024 add an offset from UTC. Further
columns are ignored.

Source: https://github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md).
"""

from __future__ import annotations

import csv
import re
from codecs import iterdecode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loadgen.trace.errors import TraceError
from loadgen.trace.request import TraceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "Azure CSV"
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII
)
_NUMBER = re.compile(r"[0-9]{1,9}")


def recognises(first_line: bytes) -> bool:
    """Whether a file that begins with ``first_line`` has this format."""
    columns = first_line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split(",")
    return set(_COLUMNS) <= {column.strip().strip('"') for column in columns}


def parse(lines: Iterable[bytes], source: str) -> Iterator[TraceRequest]:
    """The requests of a file; arrivals count from the first row.

    Args:
        lines: Its lines, with their line ends.
        source: Its name, for messages.

    Raises:
        TraceError: A row is not as it should be.
        UnicodeDecodeError: The file is no UTF-8.
    """
    reader = csv.reader(iterdecode(lines, "utf-8-sig"), strict=True)
    try:
        yield from _rows(reader)
    except UnicodeDecodeError:
        raise
    except (ValueError, csv.Error) as error:
        raise TraceError(str(error), source, reader.line_num) from error


def _rows(reader: Iterator[list[str]]) -> Iterator[TraceRequest]:
    header = [column.strip() for column in next(reader)]
    places = [header.index(column) for column in _COLUMNS]
    first_ns: int | None = None
    for row in reader:
        if not any(row):
            continue
        if len(row) != len(header):
            msg = f"{len(row)} fields, the header has {len(header)}"
            raise ValueError(msg)
        stamp, prompt_tokens, output_tokens = (row[place].strip() for place in places)
        at_ns = _nanoseconds(stamp)
        first_ns = at_ns if first_ns is None else first_ns
        yield TraceRequest(
            arrival_s=(at_ns - first_ns) / 1e9,
            prompt_tokens=_tokens("ContextTokens", prompt_tokens, at_least=1),
            output_tokens=_tokens("GeneratedTokens", output_tokens, at_least=0),
        )


def _nanoseconds(stamp: str) -> int:
    """Whole nanoseconds since 1970: a float of that size would lose the last digits."""
    match = _TIMESTAMP.fullmatch(stamp)
    if match is None:
        msg = f"TIMESTAMP {stamp!r} is not like 2023-11-16 18:17:03.9799600"
        raise ValueError(msg)
    day, clock, fraction, offset = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}").astimezone(UTC)
    return int(moment.timestamp()) * 10**9 + int((fraction or "0").ljust(9, "0"))


def _tokens(column: str, text: str, at_least: int) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) < at_least:
        msg = f"{column} {text!r} is no whole number of at least {at_least}"
        raise ValueError(msg)
    return int(text)
