"""One client request on its way through the router, and its attempts.

::

    ARRIVED ──Send──▶ SENT ──first byte relayed──▶ RELAYING ──▶ DONE
       │               │  ▲                            │
       │               └──┘ failed, sent elsewhere     │
       └──────────────▶ REFUSED / FAILED / GONE ◀──────┘

The last line holds the ends; a request reaches exactly one of them, or DONE.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.base import RequestFacts
    from router.core.replica import Replica


class State(StrEnum):
    """Where a request is."""

    ARRIVED = "arrived"
    HELD = "held"
    """It waits in the router for a better moment."""
    SENT = "sent"
    RELAYING = "relaying"
    DONE = "done"
    """Its answer, whatever its status, was relayed to the end."""
    REFUSED = "refused"
    """The router answered it itself, without any attempt."""
    FAILED = "failed"
    """Every attempt failed, or the one whose answer was being relayed did."""
    GONE = "gone"
    """The client left."""

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the request any more."""
        return self in _ENDS


_ENDS = frozenset({State.DONE, State.REFUSED, State.FAILED, State.GONE})


class Failure(StrEnum):
    """How an attempt failed."""

    CONNECT = "connect"
    """No connection could be made."""
    RESET = "reset"
    """The connection broke before the answer ended."""
    PROTOCOL = "protocol"
    """The replica's answer broke the rules of HTTP/1.1."""


class Request:
    """One client request.

    Args:
        request_id: The id that the client gave or the router made.
        facts: What is known of it.
        arrived_s: When its body was complete.
        driver: Whoever performs actions for this request; the core never looks at it.
    """

    __slots__ = (
        "arrived_s",
        "attempt",
        "attempts",
        "driver",
        "facts",
        "first_byte_s",
        "lost",
        "number",
        "request_id",
        "state",
        "status",
        "tried",
    )

    def __init__(
        self, request_id: str, facts: RequestFacts, arrived_s: float, driver: object = None
    ) -> None:
        self.request_id = request_id
        self.facts = facts
        self.arrived_s = arrived_s
        self.driver = driver
        self.number = 0
        """Its running number; set by the dispatcher."""
        self.lost = False
        """Whether it must miss its objective, wherever it goes."""
        self.state = State.ARRIVED
        self.attempt: Attempt | None = None
        self.attempts = 0
        self.tried: tuple[Replica, ...] = ()
        self.first_byte_s: float | None = None
        """When the first byte of an answer's body came."""
        self.status: int | None = None
        """The status that the client got."""

    def __repr__(self) -> str:
        return f"<Request {self.request_id} {self.state.value}>"


class Attempt:
    """One try of one request on one replica."""

    __slots__ = (
        "output_tokens",
        "predicted_e2e_s",
        "predicted_ttft_s",
        "replica",
        "request",
        "started_s",
    )

    def __init__(self, request: Request, replica: Replica, started_s: float) -> None:
        self.request = request
        self.replica = replica
        self.started_s = started_s
        self.output_tokens = 0
        """Tokens streamed so far."""
        self.predicted_ttft_s: float | None = None
        """Time from sending to the first token, as it was expected then."""
        self.predicted_e2e_s: float | None = None
        """Time from sending to the end, as it was expected then."""

    def __repr__(self) -> str:
        return f"<Attempt of {self.request.request_id} on {self.replica.name}>"
