"""The one error of the codec."""

from __future__ import annotations


class ProtocolError(Exception):
    """A message broke the rules of HTTP/1.1, or could be read in two ways.

    Args:
        message: What was wrong, for people.
        status: The status that a server should refuse it with.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
