"""One request of a trace, and the trace itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK_TOKENS = 512
"""Tokens in one prefix block of the published Mooncake traces."""

AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]


class TraceRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When one request arrived and how long it was.

    Raises:
        ValueError: There are more ``hash_ids`` than the prompt has blocks.
    """

    arrival_s: float
    """Arrival, in seconds of the trace's own clock."""

    prompt_tokens: AtLeastOne
    """Length of the prompt."""

    output_tokens: NotNegative
    """Length of the answer."""

    hash_ids: tuple[int, ...] = ()
    """One id for each prefix block of the prompt, from its start. Equal leading ids mean an equal
    prefix. Ids may be fewer than blocks: what lies behind them is shared with nobody."""

    block_tokens: AtLeastOne = BLOCK_TOKENS
    """Tokens in one prefix block."""

    session: str | None = None
    """Key of the session or user; requests with an equal one belong together."""

    tenant: str | None = None
    """Whose request it is: a customer, with as many sessions as he likes."""

    def __post_init__(self) -> None:
        blocks = -(-self.prompt_tokens // self.block_tokens)
        if len(self.hash_ids) > blocks:
            msg = (
                f"{len(self.hash_ids)} hash_ids for {self.prompt_tokens} prompt tokens, which are "
                f"only {blocks} blocks of {self.block_tokens}"
            )
            raise ValueError(msg)

    @property
    def whole_blocks(self) -> tuple[int, ...]:
        """The ids of the blocks that can be reused; the last, partial one never can."""
        return self.hash_ids[: self.prompt_tokens // self.block_tokens]


@dataclass(slots=True, frozen=True)
class Trace:
    """Requests in the order of their arrival; the first arrives at 0.

    Make one with :meth:`of`, which sees to that.
    """

    name: str
    requests: tuple[TraceRequest, ...]
    changes: tuple[str, ...] = ()
    """What was done to the rows as they were published, in words."""

    @classmethod
    def of(cls, name: str, requests: Iterable[TraceRequest], changes: Iterable[str] = ()) -> Trace:
        """Order ``requests`` by arrival and let time count from the first of them."""
        ordered = sorted(requests, key=lambda request: request.arrival_s)
        if ordered and ordered[0].arrival_s:
            first_s = ordered[0].arrival_s
            ordered = [moved(request, request.arrival_s - first_s) for request in ordered]
        return cls(name, tuple(ordered), tuple(changes))

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last."""
        return self.requests[-1].arrival_s if self.requests else 0.0


def moved(request: TraceRequest, arrival_s: float) -> TraceRequest:
    """``request`` with another arrival."""
    return msgspec.structs.replace(request, arrival_s=arrival_s)
