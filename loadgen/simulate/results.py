"""From outcomes to figures: what stands in the file that ``--out`` names.

TTFT, TPOT and E2E are those of :class:`loadgen.replay.outcome.Outcome`, and quantiles those of
:mod:`loadgen.quantiles`: a simulation and a replay report the same figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.quantiles import Distribution
from policies.base import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.replay.outcome import Outcome
    from loadgen.simulate.simulation import Simulation
    from policies.slo import Slo

FORMAT = "pointsman-simulation"
VERSION = 1

LONG_TOKENS = 32_000
"""Prompts from this length on are looked at apart: nobody may starve."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation. Times are of requests that succeeded; null where there is nothing."""

    policy: str
    seed: int
    workload: str
    fleet: str
    requests: int
    capacity_rps: float | None
    """The highest rate at which the target is met, when it was searched; null also when no rate
    meets it. The other figures are then those at this rate."""

    capacity_beyond: bool = False
    """Whether the capacity is higher still: the trace is too short to find out."""

    rate_scale: float
    rate_rps: float
    """Mean arrivals per second."""

    goodput: float
    """Share of requests that met the objective; one that failed did not."""

    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    itl_p99_s: float | None
    """Gaps between tokens, all answers together."""

    itl_p999_s: float | None

    tpot_p99_s: float | None
    """(E2E - TTFT) / (n - 1)."""

    e2e_p50_s: float | None
    ttft_max_s: float | None
    long_ttft_p99_s: float | None
    """Of prompts of at least :data:`LONG_TOKENS`; so is the next."""

    long_ttft_max_s: float | None
    held_share: float
    """Share of requests that waited in the router for a better moment."""

    largest_hold_s: float
    """The longest of these waits."""

    prefix_hit_share: float | None
    """Share of prompt tokens found in prefix caches."""

    split_share: float = 0.0
    """Requests whose prompt was computed by another replica than answered, as a share of all."""

    prefill_busy: float | None = None
    """Share of the time that replicas for prefill computed, on average; null without such."""

    decode_busy: float | None = None
    """The same of replicas for decode."""

    ttft_error_p50: float | None
    """Errors of predicted times to first token, as shares of what was seen; null under policies
    that predict none."""

    ttft_error_p90: float | None
    failed: int
    preemptions: int
    policy_errors: int
    """Choices that a fallback made because the policy broke its contract."""

    simulated_s: float
    """Virtual time from the first arrival to the last end."""


class Report(msgspec.Struct, kw_only=True):
    """The whole file."""

    format: str = FORMAT
    version: int = VERSION
    pointsman: str
    """Version of the program."""

    command: str
    slo: str
    target: float | None
    """Share of requests that has to meet the objective in a search; null when none was made."""

    tolerance: float | None
    """A capacity is at most this share below the rate at which the target was missed."""

    trace_changes: dict[str, list[str]]
    """What was done to each trace, in words, under the first seed."""

    results: list[Row]


def meets(slo: Slo, outcome: Outcome) -> bool:
    """Whether a request counts as goodput."""
    if outcome.failure is not None or outcome.ttft_s is None:
        return False
    return slo.met(
        prompt_tokens=outcome.prompt_tokens,
        ttft_s=outcome.ttft_s,
        tpot_s=outcome.tpot_s,
        e2e_s=outcome.e2e_s,
    )


def row_of(simulation: Simulation, *, policy: str, seed: int) -> Row:
    """The figures of a simulation that has run to its end."""
    outcomes, workload, holds_s = simulation.outcomes, simulation.workload, simulation.holds_s
    errors = simulation.dispatcher.estimator.ttft
    successes = [outcome for outcome in outcomes if outcome.failure is None]
    ttft_s = Distribution.of(o.ttft_s for o in successes if o.ttft_s is not None)
    long_ttft_s = Distribution.of(
        o.ttft_s for o in successes if o.ttft_s is not None and o.prompt_tokens >= LONG_TOKENS
    )
    tpot_s = Distribution.of(o.tpot_s for o in successes if o.tpot_s is not None)
    e2e_s = Distribution.of(o.e2e_s for o in successes)
    return Row(
        policy=policy,
        seed=seed,
        workload=workload.name,
        fleet=simulation.settings.fleet,
        requests=len(outcomes),
        capacity_rps=None,
        rate_scale=simulation.rate_scale,
        rate_rps=workload.rate_rps * simulation.rate_scale,
        goodput=simulation.goodput,
        ttft_p50_s=None if ttft_s is None else ttft_s.p50,
        ttft_max_s=None if ttft_s is None else ttft_s.max,
        long_ttft_p99_s=None if long_ttft_s is None else long_ttft_s.p99,
        long_ttft_max_s=None if long_ttft_s is None else long_ttft_s.max,
        held_share=sum(held_s > 0 for held_s in holds_s) / len(holds_s) if holds_s else 0.0,
        largest_hold_s=max(holds_s, default=0.0),
        ttft_p90_s=None if ttft_s is None else ttft_s.p90,
        ttft_p99_s=None if ttft_s is None else ttft_s.p99,
        itl_p99_s=simulation.gaps.quantile(0.99),
        itl_p999_s=simulation.gaps.quantile(0.999),
        tpot_p99_s=None if tpot_s is None else tpot_s.p99,
        e2e_p50_s=None if e2e_s is None else e2e_s.p50,
        prefix_hit_share=_cached_share(successes),
        split_share=simulation.dispatcher.counters.split / max(len(outcomes), 1),
        prefill_busy=_busy(simulation, Role.PREFILL),
        decode_busy=_busy(simulation, Role.DECODE),
        ttft_error_p50=errors.quantile(0.5),
        ttft_error_p90=errors.quantile(0.9),
        failed=len(outcomes) - len(successes),
        preemptions=sum(s.preemptions for s in simulation.stations.values()),
        policy_errors=len(simulation.policy_errors),
        simulated_s=simulation.agenda.now_s,
    )


def _busy(simulation: Simulation, role: Role) -> float | None:
    engines = [s.engine for s in simulation.stations.values() if s.plan.role is role]
    busy_s = [engine.busy_s_total for engine in engines if engine is not None]
    return sum(busy_s) / (len(busy_s) * simulation.agenda.now_s) if busy_s else None


def dump_report(report: Report) -> bytes:
    """``report`` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def _cached_share(successes: Sequence[Outcome]) -> float | None:
    prompt_tokens = sum(outcome.prompt_tokens for outcome in successes)
    cached_tokens = sum(outcome.cached_tokens or 0 for outcome in successes)
    return cached_tokens / prompt_tokens if prompt_tokens else None
