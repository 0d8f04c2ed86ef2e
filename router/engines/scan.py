"""Finding a few lines on a Prometheus text page without parsing the page.

A vLLM page is 50 to 300 KB, nearly all of it histogram buckets. ``bytes.find`` crosses 100 KB in
about 20 µs; a parser needs tens of milliseconds. The price is one assumption, which the format
guarantees: the lines of one metric stand together, each at the start of a line.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LABEL_SET = re.compile(rb'[ \t]*+\{((?:[^"}]++|"(?:[^"\\]++|\\.)*+")*+)\}', re.DOTALL)
_LABEL = re.compile(
    rb'[ \t,]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\.)*+)"', re.DOTALL
)
_ESCAPE = re.compile(r'\\([\\n"])')
_SHOWN_BYTES = 80


class Series(NamedTuple):
    """One line of a metric."""

    label_text: bytes
    """What stands between the braces, still escaped; empty when there are none."""

    value: float
    """The value; it may be NaN or infinite."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels by name, unescaped."""
        return {
            name.decode(): _unescape(value.decode("utf-8", "replace"))
            for name, value in _LABEL.findall(self.label_text)
        }


def series(page: bytes, name: bytes) -> list[Series]:
    """All lines of the metric ``name`` (the whole name), in their order; timestamps are dropped.

    Raises:
        ValueError: A line of that metric has no number, or broken labels.
    """
    found: list[Series] = []
    at = 0 if page.startswith(name) else _next_line(page, name, 0)
    while at >= 0:
        end = page.find(b"\n", at)
        if end < 0:
            end = len(page)
        rest = page[at + len(name) : end]
        if rest[:1] in (b"{", b" ", b"\t"):
            found.append(_read(name, rest))
        if page.startswith(name, end + 1):
            at = end + 1
        elif found:
            break
        else:
            at = _next_line(page, name, end)
    return found


def has_prefix(page: bytes, prefix: bytes) -> bool:
    """Whether any line of ``page`` starts with ``prefix``."""
    return page.startswith(prefix) or page.find(b"\n" + prefix) >= 0


def _next_line(page: bytes, name: bytes, start: int) -> int:
    """Where the next line that starts with ``name`` begins; -1: nowhere."""
    at = page.find(b"\n" + name, start)
    return at + 1 if at >= 0 else -1


def _read(name: bytes, rest: bytes) -> Series:
    labels = _LABEL_SET.match(rest)
    words = rest[labels.end() if labels else 0 :].split(None, 1)
    try:
        return Series(labels[1] if labels else b"", _number(words[0]))
    except (IndexError, ValueError):
        shown = (name + rest)[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        msg = f"no number on the line {shown!r}"
        raise ValueError(msg) from None


def _number(word: bytes) -> float:
    if b"_" in word:  # float() takes 1_000, the format does not
        raise ValueError(word)
    return float(word)


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
