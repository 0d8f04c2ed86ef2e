"""What an upstream connection knows of those whom it carries responses for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from router.core.request import Attempt, Failure
    from router.http1.response import ResponseHead
    from router.proxy.relay import Relay
    from router.proxy.upstream import UpstreamConnection


class Recipient(Protocol):
    """Who a response is for."""

    @property
    def method(self) -> bytes:
        """The method of the request; it decides whether the response has a body."""

    def request_bytes(self, connection: UpstreamConnection) -> tuple[bytes, bytes]:
        """Head and body to send; ``connection`` carries the exchange from now on."""

    def response_began(self, head: ResponseHead, length: int | None) -> Relay | None:
        """The final head came; returns what takes the body, framing included.

        None: nobody wants it. The recipient is no longer one of this connection's, and may be one
        of another's already.
        """

    def response_ended(self) -> None:
        """The response is complete."""

    def attempt_failed(self, attempt: Attempt, failure: Failure, *, at_boundary: bool) -> None:
        """The attempt broke; ``at_boundary``: the framing allows one more piece."""
