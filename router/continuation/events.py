"""Server-sent events: where they end, and what their data is."""

from __future__ import annotations

import re
from typing import Final

DONE: Final = b"[DONE]"
"""The data of the event that ends a stream of the OpenAI APIs."""

_BLANK_LINE: Final = re.compile(rb"\r\n\r?\n|\n\r?\n|\r\r")


def whole_until(data: bytes) -> int:
    """Where the last whole event of ``data`` ends; 0 if there is none."""
    return max(
        _after(data, b"\n\n"),
        _after(data, b"\r\n\r\n"),
        _after(data, b"\n\r\n"),
        _after(data, b"\r\r"),
    )


def split(data: bytes) -> list[bytes]:
    """The events of ``data``, which ends where one ends; each with its blank line."""
    events, start = [], 0
    for match in _BLANK_LINE.finditer(data):
        if match.start() > start:
            events.append(data[start : match.end()])
        start = match.end()
    return events


def payload(event: bytes) -> bytes:
    """The data of an event; empty for a comment."""
    if event.startswith(b"data:") and event.find(b"\n") >= len(event) - 4:
        return event[5:].strip()
    lines = event.splitlines()
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


def _after(data: bytes, end: bytes) -> int:
    at = data.rfind(end)
    return at + len(end) if at >= 0 else 0
