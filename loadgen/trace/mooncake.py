"""The JSONL format of the Mooncake traces.

``{"timestamp": 2999, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, …]}``: the
timestamp in **milliseconds**, one hash id for each 512 tokens of the prompt. Some traces in this
format have no ``hash_ids``, some a ``client_id`` (a number or a string), which is read as the
tenant: a client of ServeGen's is a whole application, with many users. Further keys are ignored.

Sources: https://github.com/kvcache-ai/Mooncake (FAST25-release/traces), and for ``client_id``
https://github.com/alibaba/ServeGen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.trace.jsonlines import decode_rows, first_keys
from loadgen.trace.request import AtLeastOne, NotNegative, TraceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "Mooncake JSONL"


class _Row(msgspec.Struct):
    timestamp: float
    input_length: AtLeastOne
    output_length: NotNegative
    hash_ids: tuple[int, ...] | None = None
    client_id: int | str | None = None


def recognises(first_line: bytes) -> bool:
    """Whether a file that begins with ``first_line`` has this format."""
    return {"timestamp", "input_length"} <= first_keys(first_line)


def parse(lines: Iterable[bytes], source: str) -> Iterator[TraceRequest]:
    """The requests of a file, on its own clock.

    Args:
        lines: Its lines, with or without line ends.
        source: Its name, for messages.

    Raises:
        TraceError: A row is not as it should be.
    """
    return decode_rows(lines, source, msgspec.json.Decoder(_Row).decode, _request)


def _request(row: _Row) -> TraceRequest:
    return TraceRequest(
        arrival_s=row.timestamp / 1e3,
        prompt_tokens=row.input_length,
        output_tokens=row.output_length,
        hash_ids=row.hash_ids or (),
        tenant=None if row.client_id is None else str(row.client_id),
    )
