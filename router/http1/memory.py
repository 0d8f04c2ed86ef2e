"""Heads that were read before, remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 4096
"""A longer head is read each time, so that what is remembered stays small."""

_LENGTH_FIELDS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")

T = TypeVar("T")


class HeadMemory(Generic[T]):
    """Reads heads, and remembers what it read; only Content-Length may differ.

    Args:
        parse: Reads one head; gives what follows from it, and its declared length.
        max_heads: When so many are remembered, all are forgotten.
    """

    __slots__ = ("_known", "_max_heads", "_parse")

    def __init__(self, parse: Callable[[bytes], tuple[T, int | None]], max_heads: int) -> None:
        self._parse = parse
        self._max_heads = max_heads
        self._known: dict[bytes, T] = {}

    def read(self, block: bytes) -> tuple[T, int | None]:
        """What follows from a head, and the length of the body that it declares.

        Raises:
            ProtocolError: The head is malformed.
        """
        key, length = block, None
        for name in _LENGTH_FIELDS:
            at = block.find(name)
            if at >= 0:
                at += len(name)
                end = block.find(b"\r", at)
                digits = block[at:end]
                if not digits.isdigit() or len(digits) > 18:
                    return self._parse(block)  # never taken for one whose number was cut out
                key, length = block[:at] + block[end:], int(digits)
                break
        known = self._known.get(key)
        if known is not None:
            return known, length
        known, declared = self._parse(block)
        if declared == length and len(block) <= MAX_HEAD_BYTES:
            if len(self._known) >= self._max_heads:
                self._known.clear()
            self._known[key] = known
        return known, declared
