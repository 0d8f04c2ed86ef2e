"""Decisions as the admin plane tells them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from datetime import datetime

    from router.core.decisions import Decision


class ToldEstimate(msgspec.Struct, frozen=True):
    """What the policy expected of one candidate; see :class:`policies.base.Estimate`."""

    replica: str
    queue_s: float
    prefill_s: float
    decode_s: float
    kv_wait_s: float
    cached_tokens: int
    harm: float
    cost: float
    prefill_replica: str = ""
    transfer_s: float = 0.0


class ToldDecision(msgspec.Struct, frozen=True):
    """One attempt: where it went, why, and how it turned out.

    See :class:`router.core.decisions.Decision`.
    """

    request_id: str
    at: str
    """When it was sent: ISO 8601, UTC."""

    model: str | None
    prompt_tokens: int
    attempt: int
    chosen: str
    reason: str
    candidates: int
    held_s: float
    ttft_s: float | None
    e2e_s: float | None
    seen_ttft_s: float | None
    took_s: float | None
    outcome: str | None
    estimates: list[ToldEstimate]
    """Of the best candidates, the best first."""


class ExplainPage(msgspec.Struct, frozen=True):
    """The page ``/explain``."""

    policy: str
    """The policy that decides, as the configuration names it."""

    kept: int
    """Decisions that are kept; those before are forgotten."""

    decisions: list[ToldDecision]


def told(decision: Decision, now: float, wall: datetime) -> ToldDecision:
    """A decision as people read it.

    Args:
        decision: As it is kept.
        now: The time on the clock of the decision.
        wall: The same moment, UTC.
    """
    at = wall - timedelta(seconds=now - decision.at_s)
    return ToldDecision(
        request_id=decision.request_id,
        at=at.isoformat(timespec="milliseconds"),
        model=decision.model,
        prompt_tokens=decision.prompt_tokens,
        attempt=decision.attempt,
        chosen=decision.chosen,
        reason=decision.reason,
        candidates=decision.candidates,
        held_s=decision.held_s,
        ttft_s=decision.ttft_s,
        e2e_s=decision.e2e_s,
        seen_ttft_s=decision.seen_ttft_s,
        took_s=decision.took_s,
        outcome=decision.outcome,
        estimates=[
            ToldEstimate(*msgspec.structs.astuple(estimate)) for estimate in decision.estimates
        ],
    )
