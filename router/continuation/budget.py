"""How much may be remembered of all streams together."""

from __future__ import annotations


class Budget:
    """Bytes that the streams share.

    Args:
        total_bytes: So many at most.
    """

    __slots__ = ("held_bytes", "total_bytes")

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0
        """Handed out at present."""

    @property
    def scarce(self) -> bool:
        """Whether more than half of it is handed out."""
        return 2 * self.held_bytes > self.total_bytes

    def take(self, count: int) -> bool:
        """Take ``count`` bytes; False, and nothing taken, when there are not so many left."""
        if self.held_bytes + count > self.total_bytes:
            return False
        self.held_bytes += count
        return True

    def give_back(self, count: int) -> None:
        """Return ``count`` bytes that were taken."""
        self.held_bytes -= count
