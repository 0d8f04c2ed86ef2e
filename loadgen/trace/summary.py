"""What a trace looks like, in a few figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from loadgen.quantiles import Distribution

if TYPE_CHECKING:
    from loadgen.trace.request import Trace


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a trace as it is replayed."""

    name: str
    changes: list[str]
    """What was done to the rows as they were published."""

    requests: int
    duration_s: float
    """From the first arrival to the last."""

    rate_rps: float
    """Mean arrivals per second; 0 when all arrive at once."""

    prompt_tokens: Distribution | None
    output_tokens: Distribution | None
    reusable_share: float
    """Share of prompt tokens that a prefix cache without bounds would find (whole leading
    blocks seen in an earlier request)."""

    shared_time_share: float
    """Share of requests with the very arrival time of another: high where times are quantised."""


def summarise_trace(trace: Trace) -> TraceSummary:
    """Look at ``trace``."""
    requests = trace.requests
    times = Counter(request.arrival_s for request in requests)
    volleys = sum(count for count in times.values() if count > 1)
    return TraceSummary(
        name=trace.name,
        changes=list(trace.changes),
        requests=len(requests),
        duration_s=trace.duration_s,
        rate_rps=len(requests) / trace.duration_s if trace.duration_s else 0.0,
        prompt_tokens=Distribution.of(request.prompt_tokens for request in requests),
        output_tokens=Distribution.of(request.output_tokens for request in requests),
        reusable_share=_reusable_share(trace),
        shared_time_share=volleys / len(requests) if requests else 0.0,
    )


def _reusable_share(trace: Trace) -> float:
    seen: set[tuple[int, int]] = set()
    found_tokens = 0
    for request in trace.requests:
        blocks = [(block, request.block_tokens) for block in request.whole_blocks]
        for block in blocks:
            if block not in seen:
                break
            found_tokens += request.block_tokens
        seen.update(blocks)
    prompt_tokens = sum(request.prompt_tokens for request in trace.requests)
    return found_tokens / prompt_tokens if prompt_tokens else 0.0
