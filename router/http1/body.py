"""Bodies whose end is known by a count, or by the connection's end.

They have the ``scan`` of :class:`router.http1.chunked.ChunkedBody`, so that a relay treats all
three alike.
"""

from __future__ import annotations

from typing import Protocol


class Body(Protocol):
    """Follows the framing of one body."""

    def scan(self, data: bytes) -> int:
        """Walk over ``data``; returns where the message ends in it, or -1 if it does not."""

    @property
    def at_boundary(self) -> bool:
        """Whether a piece of one's own could be put in here without breaking the framing."""


class LengthBody:
    """A body of a declared length, at least 1."""

    __slots__ = ("_left",)
    at_boundary = False

    def __init__(self, length: int) -> None:
        self._left = length

    def scan(self, data: bytes) -> int:
        """Count ``data``; returns where the message ends in it, or -1 if it does not."""
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            return -1
        self._left = 0
        return left


class UntilClose:
    """A body that ends with its connection."""

    __slots__ = ()
    at_boundary = True

    def scan(self, data: bytes) -> int:
        """Nothing ends it but the connection's end: always -1."""
        del data
        return -1
