"""What can be done to a trace before it is replayed. Each function returns a new trace.

Each one notes in ``changes`` what it did, so that no report hides it. A replay applies them in
the order of this file: times are spread before they are cut, so that a window shows the same
requests at the same times whatever its bounds.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from random import Random
from typing import TYPE_CHECKING

import msgspec

from loadgen.trace.request import Trace, TraceRequest, moved

if TYPE_CHECKING:
    from collections.abc import Iterator


def jitter(trace: Trace, seed: int) -> Trace:
    """Spread requests that share one timestamp evenly over the gap to the next timestamp.

    Some traces are quantised: Mooncake's times are multiples of about 3 s, with 10 to 12 requests
    each. Each volley is spread uniformly at random; the last one over the gap before it. Requests
    that are alone at their time stay there.

    Args:
        trace: The trace.
        seed: Seed of the chance.
    """
    rng = Random(seed)
    volleys = [list(group) for _, group in groupby(trace.requests, lambda r: r.arrival_s)]
    starts_s = [volley[0].arrival_s for volley in volleys]
    gaps_s = [after - before for before, after in pairwise(starts_s)]
    gaps_s.append(gaps_s[-1] if gaps_s else 0.0)
    requests = [
        request
        for volley, gap_s in zip(volleys, gaps_s, strict=True)
        for request in _spread(volley, gap_s, rng)
    ]
    count = sum(len(volley) for volley in volleys if len(volley) > 1)
    note = f"jitter (seed {seed}): {count} requests that shared a timestamp spread up to the next"
    return Trace.of(trace.name, requests, (*trace.changes, note))


def window(trace: Trace, start_s: float = 0.0, duration_s: float | None = None) -> Trace:
    """Keep the requests that arrive from ``start_s`` on, for ``duration_s`` (None: to the end)."""
    end_s = None if duration_s is None else start_s + duration_s
    kept = [
        request
        for request in trace.requests
        if request.arrival_s >= start_s and (end_s is None or request.arrival_s < end_s)
    ]
    until = "its end" if end_s is None else f"{end_s:g} s"
    note = f"only arrivals from {start_s:g} s to {until}"
    return Trace.of(trace.name, kept, (*trace.changes, note))


def limit(trace: Trace, count: int) -> Trace:
    """Keep the first ``count`` requests."""
    note = f"only the first {count} requests"
    return Trace.of(trace.name, trace.requests[:count], (*trace.changes, note))


def clip_prompts(trace: Trace, max_tokens: int) -> Trace:
    """Cut longer prompts to ``max_tokens``. No arrival is lost, no prefix ceases to be shared."""
    requests = [_clipped(request, max_tokens) for request in trace.requests]
    count = sum(request.prompt_tokens > max_tokens for request in trace.requests)
    note = f"{count} prompts cut to {max_tokens} tokens"
    return Trace.of(trace.name, requests, (*trace.changes, note))


def clip_outputs(trace: Trace, max_tokens: int) -> Trace:
    """Cut longer answers to ``max_tokens``."""
    requests = [
        msgspec.structs.replace(request, output_tokens=min(request.output_tokens, max_tokens))
        for request in trace.requests
    ]
    count = sum(request.output_tokens > max_tokens for request in trace.requests)
    note = f"{count} answers cut to {max_tokens} tokens"
    return Trace.of(trace.name, requests, (*trace.changes, note))


def scale_rate(trace: Trace, factor: float) -> Trace:
    """Let requests arrive ``factor`` times as fast."""
    requests = [moved(request, request.arrival_s / factor) for request in trace.requests]
    note = f"arrivals {factor:g} times as fast"
    return Trace.of(trace.name, requests, (*trace.changes, note))


def _spread(volley: list[TraceRequest], gap_s: float, rng: Random) -> Iterator[TraceRequest]:
    if len(volley) == 1:
        yield volley[0]
        return
    offsets_s = sorted(rng.uniform(0, gap_s) for _ in volley)
    for request, offset_s in zip(volley, offsets_s, strict=True):
        yield moved(request, request.arrival_s + offset_s)


def _clipped(request: TraceRequest, max_tokens: int) -> TraceRequest:
    if request.prompt_tokens <= max_tokens:
        return request
    blocks = -(-max_tokens // request.block_tokens)
    return msgspec.structs.replace(
        request, prompt_tokens=max_tokens, hash_ids=request.hash_ids[:blocks]
    )
