"""What an exchange has on both sides: the data plane, and its client's connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.actions import Actions
    from router.core.dispatcher import Dispatcher
    from router.core.hot_prompts import HotPrompts
    from router.proxy.answers import Answer
    from router.proxy.continuing import Continuations
    from router.proxy.heads import KnownRequest
    from router.proxy.pool import UpstreamPool
    from router.proxy.understanding import Understanding


class Plane(Protocol):
    """What an exchange needs of the data plane."""

    dispatcher: Dispatcher
    pool: UpstreamPool
    aliases: dict[str, str]
    understanding: Understanding
    continuations: Continuations
    hot: HotPrompts
    sent_bytes_total: int

    def now(self) -> float:
        """The time, in monotonic seconds."""

    def perform(self, actions: Actions) -> None:
        """Do what the dispatcher asks."""

    def release_bytes(self, count: int) -> None:
        """So many bytes of a request body are held no more."""

    def request_id(self) -> bytes:
        """A new request id."""


class Client(Protocol):
    """What an exchange needs of its client's connection."""

    address: bytes
    """The client's IP address; empty when it has none."""
    writing_blocked: bool
    """Whether the client reads more slowly than it is written to."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends bytes of the answer."""

    def answer(self, answer: Answer, request: KnownRequest | None, *, keep_alive: bool) -> None:
        """Send an answer of the router's own."""

    def exchange_done(self, *, keep_alive: bool) -> None:
        """The exchange is over; the next request may come."""

    def break_off(self, *, reset: bool) -> None:
        """Close so that the client sees that the answer is incomplete."""
