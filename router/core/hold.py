"""The router's own queue: requests that wait for a better moment."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from router.core.request import Request

NO_OBJECTIVE_S = 10.0
"""Place in the queue of a request without objective: as if this were its limit."""

SETBACK_S = 20.0
"""A request that must miss its objective waits as if its limit were so much later: what can still
be met goes first, and what cannot is overtaken for so long only."""

PRIORITY_S = 5.0
"""One step of priority moves a request by so much in the queue."""

TENANT_TOKENS_PER_S = 10_000.0
"""A tenant's request is placed later by the tokens that the same tenant holds already: at this
rate, up to :data:`MOST_TENANT_S`, so that one tenant's burst does not make the others wait."""

MOST_TENANT_S = 10.0


@dataclass(slots=True)
class HoldLimits:
    """How much may wait in the router."""

    enabled: bool = True
    """False: each request is sent at once, whatever the policy says."""

    max_requests: int = 10_000
    max_tokens: int = 50_000_000
    """Prompt tokens of all that waits."""

    shed_late: bool = False
    """Whether a request that would wait past its objective is refused."""

    outage_s: float = 30.0
    """So long a request waits for a replica that serves it to come back; 0: not at all."""


class HoldQueue:
    """Held requests, the most urgent first.

    Each has its place by a time that changes once at most: its deadline, and when it must miss
    that, a later one. So whatever waits is overtaken for a bounded time only.
    """

    __slots__ = ("_order", "_places", "_tenants", "tokens")

    def __init__(self) -> None:
        self._order: list[tuple[float, int, Request]] = []
        self._places: dict[Request, tuple[float, int, Request]] = {}
        self._tenants: dict[str, int] = {}
        """Prompt tokens held, by tenant."""
        self.tokens = 0
        """Prompt tokens of all that is held."""

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Request]:
        """The requests in order; the queue may change meanwhile."""
        return iter([entry[2] for entry in self._order])

    def __contains__(self, request: Request) -> bool:
        return request in self._places

    def first(self, count: int) -> list[Request]:
        """The ``count`` most urgent."""
        return [entry[2] for entry in self._order[:count]]

    def ahead(self, request: Request) -> int:
        """How many of those that are no more urgent have their turn before it, if it waited."""
        place = self._place_s(request, lost=False), request.number
        priority = request.facts.priority
        found = 0
        for at_s, number, other in self._order:
            if (at_s, number) >= place:
                break
            found += other.facts.priority >= priority
        return found

    def last_to_begin(self) -> Request | None:
        """The least urgent of those whose answer has not begun; None: there is none."""
        return next((e[2] for e in reversed(self._order) if not e[2].relayed), None)

    def put(self, request: Request, *, lost: bool = False) -> None:
        """Let a request wait, or move one that waits to another place.

        Args:
            request: Who.
            lost: It must miss its objective.
        """
        if request in self._places:
            self.take(request)
        entry = (self._place_s(request, lost=lost), request.number, request)
        tokens, tenant = request.facts.prompt_tokens, request.facts.tenant
        if tenant is not None:
            self._tenants[tenant] = self._tenants.get(tenant, 0) + tokens
        self._places[request] = entry
        insort(self._order, entry, key=_place)
        self.tokens += tokens

    def _place_s(self, request: Request, *, lost: bool) -> float:
        facts = request.facts
        place_s = request.arrived_s + (facts.ttft_slo_s or NO_OBJECTIVE_S)
        place_s += PRIORITY_S * facts.priority + (SETBACK_S if lost else 0.0)
        if facts.tenant is not None:
            held = self._tenants.get(facts.tenant, 0)
            place_s += min(held / TENANT_TOKENS_PER_S, MOST_TENANT_S)
        return place_s

    def take(self, request: Request) -> None:
        """Let a request wait no more."""
        self._order.remove(self._places.pop(request))
        tokens, tenant = request.facts.prompt_tokens, request.facts.tenant
        self.tokens -= tokens
        if tenant is not None:
            left = self._tenants[tenant] - tokens
            if left > 0:
                self._tenants[tenant] = left
            else:
                del self._tenants[tenant]


def _place(entry: tuple[float, int, Request]) -> tuple[float, int]:
    return entry[0], entry[1]
