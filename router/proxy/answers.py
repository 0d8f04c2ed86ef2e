"""Answers that the router gives itself."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(slots=True, frozen=True)
class Answer:
    """A complete answer, still without the fields of its connection."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    lines: bytes = b""
    """Further fields; each begins with CRLF."""

    def encode(self, connection: bytes, *, head_only: bool) -> bytes:
        """The answer on the wire.

        Args:
            connection: The Connection field, beginning with CRLF; may be empty.
            head_only: Leave the body out, as for HEAD.
        """
        reason = HTTPStatus(self.status).phrase.encode()
        return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d%b%b\r\n\r\n%b" % (
            self.status,
            reason,
            self.content_type,
            len(self.body),
            self.lines,
            connection,
            b"" if head_only else self.body,
        )


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
