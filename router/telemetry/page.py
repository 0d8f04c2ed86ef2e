"""The metrics page, written without holding up the event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

_EOF = b"# EOF\n"
"""The last line of the OpenMetrics format; the older text format has none."""


@dataclass(slots=True, frozen=True)
class _Only(Collector):
    metric: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.metric,)


async def write_page(pieces: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """Write metrics in the format that the reader prefers, with a breath after each piece.

    Args:
        pieces: Families, or pieces of families: see :mod:`router.telemetry.pieces`.
        accept: The reader's Accept header; empty for none.

    Returns:
        The page and its content type.
    """
    encode, content_type = choose_encoder(accept)
    ended = False
    parts: list[bytes] = []
    family = ""
    for piece in pieces:
        part = encode(_Only(piece))
        ended = part.endswith(_EOF)
        part = part.removesuffix(_EOF)
        parts.append(_without_head(part) if piece.name == family else part)
        family = piece.name
        await asyncio.sleep(0)
    if ended:
        parts.append(_EOF)
    return b"".join(parts), content_type


def _without_head(part: bytes) -> bytes:
    while part.startswith(b"# "):
        part = part.partition(b"\n")[2]
    return part
