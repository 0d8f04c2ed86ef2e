"""A trace, made ready: what the router sees of each request, and what the engine sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from loadgen.trace.errors import TraceError
from policies.base import RequestFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.trace.request import Trace, TraceRequest
    from policies.slo import Slo

MODEL = "simulated"
"""The one model that is asked for, and that every simulated replica serves."""


@dataclass(slots=True, frozen=True)
class Planned:
    """One request to come."""

    number: int
    """Its place in the trace."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    """Known to the engine's model only; the router must not look at it."""

    keys: tuple[int, ...]
    """A key for each prefix block: equal keys mean equal tokens up to the end of the block."""

    facts: RequestFacts
    """What a live router would know. Of the length of the answer it knows nothing: traces do not
    tell what bound the clients gave."""


@dataclass(slots=True, frozen=True)
class Workload:
    """The requests of a trace, in the order of their arrival."""

    name: str
    requests: Sequence[Planned]
    duration_s: float
    """From the first arrival to the last."""

    key_tokens: int | None
    """Tokens in one prefix block; None where the trace names none."""

    @property
    def rate_rps(self) -> float:
        """Mean arrivals per second; 0 when all arrive at once."""
        return len(self.requests) / self.duration_s if self.duration_s else 0.0


def plan(trace: Trace, slo: Slo) -> Workload:
    """Make ``trace`` ready.

    Args:
        trace: What arrives.
        slo: The objective of each request, which the router is told.

    Raises:
        TraceError: Its prefix blocks are not all of one size.
    """
    sizes = {request.block_tokens for request in trace.requests if request.hash_ids}
    if len(sizes) > 1:
        found = ", ".join(map(str, sorted(sizes)))
        raise TraceError(f"prefix blocks of {found} tokens; one size is allowed", trace.name)
    return Workload(
        name=trace.name,
        requests=[_planned(number, each, slo) for number, each in enumerate(trace.requests)],
        duration_s=trace.duration_s,
        key_tokens=next(iter(sizes), None),
    )


def _planned(number: int, request: TraceRequest, slo: Slo) -> Planned:
    prompt_tokens = request.prompt_tokens
    keys = _chained(request.whole_blocks, request.tenant)
    return Planned(
        number=number,
        arrival_s=request.arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=max(request.output_tokens, 1),
        keys=keys,
        facts=RequestFacts(
            model=MODEL,
            prompt_tokens=prompt_tokens,
            session=request.session,
            streamed=True,
            tenant=request.tenant,
            ttft_slo_s=slo.ttft_limit_s(prompt_tokens),
            tpot_slo_s=slo.tpot_s,
            # an engine computes the last token of a prompt again, whatever is cached
            prefix=keys[: (prompt_tokens - 1) // request.block_tokens],
            prefix_block_tokens=request.block_tokens if keys else 0,
        ),
    )


def _chained(blocks: Sequence[int], tenant: str | None) -> tuple[int, ...]:
    """Keys that depend on all blocks before: a trace's id may come again behind another prefix.

    Tenants share no prefixes. Hashes of tuples of integers are the same in every process.
    """
    key = 0 if tenant is None else crc32(tenant.encode("utf-8", "surrogatepass"))
    keys = []
    for block in blocks:
        key = hash((key, block))
        keys.append(key)
    return tuple(keys)
