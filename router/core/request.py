"""One client request on its way through the router, and its attempts.

::

    ARRIVED ──Send──▶ SENT ──first byte relayed──▶ RELAYING ──▶ DONE
       │               │  ▲                            │
       │               └──┘ failed, sent elsewhere     │
       └──────────────▶ REFUSED / FAILED / GONE ◀──────┘

The last line holds the ends; a request reaches exactly one of them, or DONE. Before each Send it
may be HELD. A stream that broke and can be continued goes back from RELAYING to SENT, or HELD.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.base import RequestFacts
    from router.core.hold import HoldQueue
    from router.core.replica import Replica
    from router.core.retry import Tries


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


_ARRIVED = State.ARRIVED  # a look-up there costs as much as calling a method
_ENDS = frozenset({State.DONE, State.REFUSED, State.FAILED, State.GONE})


class Leg(StrEnum):
    """What part of a request an attempt is."""

    WHOLE = "whole"
    PREFILL = "prefill"
    """Its prompt only, for another replica."""
    DECODE = "decode"
    """Its answer only: the KV of the prompt comes from another replica."""


_WHOLE = Leg.WHOLE


class Failure(StrEnum):
    """How an attempt failed."""

    CONNECT = "connect"
    """No connection could be made."""
    RESET = "reset"
    """The connection broke before the answer ended."""
    PROTOCOL = "protocol"
    """The replica's answer broke the rules of HTTP/1.1."""
    GAVE_UP = "gave_up"
    """The engine gave up inside of its stream, or ended it before the answer was complete."""
    STALL = "stall"
    """The replica, or this stream of it, made no token for too long."""


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
        "continuable",
        "continued",
        "driver",
        "facts",
        "failures",
        "first_byte_s",
        "hedge",
        "held_s",
        "lost",
        "not_before_s",
        "number",
        "offered",
        "queue",
        "relayed",
        "request_id",
        "split",
        "state",
        "status",
        "tried",
        "tries",
        "unreached",
        "unreached_continued",
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
        self.offered = 0
        """Replicas that it could have been sent to when the policy was asked last."""
        self.lost = False
        """Whether it must miss its objective, wherever it goes."""
        self.state = _ARRIVED
        self.attempt: Attempt | None = None
        self.hedge: Attempt | None = None
        """A second try beside ``attempt``, as long as neither has begun to answer."""
        self.split: Split | None = None
        """What is known of its other leg, from when both were begun until the first token."""
        self.attempts = 0
        self.tried: tuple[Replica, ...] = ()
        self.failures: dict[Replica, float] | None = None
        """When it failed or was turned away last, by replica; None while nothing went wrong."""
        self.unreached = 0
        """Attempts that reached no replica: no connection could be made."""
        self.unreached_continued = 0
        """Those of them that were to go on with an answer."""
        self.tries: Tries | None = None
        """What happened to it so far; None as long as nothing went wrong."""
        self.queue: HoldQueue | None = None
        """Where it waits; None when it does not."""
        self.held_s = 0.0
        """When it began to wait."""
        self.not_before_s = 0.0
        """Not to be sent again before, while it waits after a failure."""
        self.relayed = False
        """Whether its client has the beginning of an answer, so that no other may follow."""
        self.continuable = False
        """Whether that answer could go on elsewhere; set by the driver, and taken back by it."""
        self.continued = 0
        """How often its answer went on elsewhere."""
        self.first_byte_s: float | None = None
        """When the first byte of an answer's body came."""
        self.status: int | None = None
        """The status that the client got."""

    def carries(self, attempt: Attempt) -> bool:
        """Whether the attempt is one of its open ones."""
        legs = (self.attempt, self.hedge, None if self.split is None else self.split.leg)
        return attempt in legs

    def failed_at(self, replica: Replica, now: float) -> None:
        """An attempt on ``replica`` came to nothing."""
        if self.failures is None:
            self.failures = {}
        self.failures[replica] = now

    def __repr__(self) -> str:
        return f"<Request {self.request_id} {self.state.value}>"


@dataclass(slots=True)
class Split:
    """A request whose prompt is computed on one replica and answered by another."""

    leg: Attempt | None
    """The prefill leg, while it is open; the decode leg is the request's attempt."""

    prefilled_s: float | None = None
    """When the prompt was computed, and its KV could go on its way."""

    undisturbed: bool = False
    """Whether the replica that answers had no prompt of its own to compute then."""


class Attempt:
    """One try of one request on one replica."""

    __slots__ = (
        "decision",
        "expected_s",
        "heard_s",
        "is_retry",
        "leg",
        "output_tokens",
        "paused",
        "predicted_e2e_s",
        "predicted_ttft_s",
        "prefill_s",
        "prefix_clock",
        "replica",
        "reports",
        "request",
        "started_s",
    )

    def __init__(self, request: Request, replica: Replica, started_s: float) -> None:
        self.request = request
        self.replica = replica
        self.started_s = started_s
        self.leg = _WHOLE
        self.decision = -1
        """The running number by which the decision for it is kept."""
        self.output_tokens = 0
        """Tokens streamed so far."""
        self.reports = 0
        """How often the router was told of some."""
        self.heard_s = started_s
        """When it was told last."""
        self.paused = False
        """Whether the client reads more slowly than the replica writes."""
        self.is_retry = False
        """Whether it is charged to the budget of retries."""
        self.prefill_s = 0.0
        """Expected time of its prefill by itself."""
        self.expected_s = 0.0
        """Time from sending to the first token, from what the router knew of the replica."""
        self.prefix_clock = 0
        """When its prompt was sent, by the clock of the prefix index."""
        self.predicted_ttft_s: float | None = None
        """Time from sending to the first token, as the policy expected it."""
        self.predicted_e2e_s: float | None = None
        """Time from sending to the end, as it was expected then."""

    def __repr__(self) -> str:
        return f"<Attempt of {self.request.request_id} on {self.replica.name}>"
