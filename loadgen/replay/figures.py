"""From outcomes to the report's figures. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadgen.quantiles import Distribution
from loadgen.replay.report import (
    LATE_LIMIT_S,
    ClientHealth,
    Counts,
    ErrorCount,
    Goodput,
    ReplicaShare,
    Report,
    Throughput,
    TokenCounts,
)
from loadgen.trace.summary import summarise_trace
from router import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from loadgen.replay.options import ReplayOptions
    from loadgen.replay.outcome import Outcome
    from loadgen.trace.request import Trace
    from policies.slo import Slo


@dataclass(slots=True, kw_only=True)
class Measured:
    """What a run yields; times are seconds of the client's clock."""

    started: datetime
    model: str
    interrupted: bool
    outcomes: Sequence[Outcome]
    """Of the requests that ended, in the order of their ends."""

    cancelled: int
    gaps_s: Iterable[float]
    loop_lags_s: Iterable[float]


def report_of(trace: Trace, options: ReplayOptions, measured: Measured) -> Report:
    """The report of a run of ``trace`` under ``options``."""
    speed = options.speed
    outcomes = measured.outcomes
    successes = [outcome for outcome in outcomes if outcome.failure is None]
    duration_s = _duration_s(outcomes) * speed
    return Report(
        pointsman=__version__,
        started=measured.started.isoformat(timespec="seconds"),
        url=options.url,
        model=measured.model,
        endpoint=options.endpoint,
        speed=speed,
        timeout_s=options.timeout_s,
        salt=options.salt,
        interrupted=measured.interrupted,
        trace=summarise_trace(trace),
        requests=Counts(
            planned=len(trace.requests),
            sent=len(outcomes) + measured.cancelled,
            succeeded=len(successes),
            failed=len(outcomes) - len(successes),
            cancelled=measured.cancelled,
        ),
        duration_s=duration_s,
        slo=str(options.slo),
        goodput=_goodput(options.slo, outcomes, speed, duration_s),
        throughput=_throughput(successes, duration_s),
        ttft_s=_distribution((o.ttft_s for o in successes), speed),
        itl_s=_distribution(measured.gaps_s, speed),
        tpot_s=_distribution((o.tpot_s for o in successes), speed),
        e2e_s=_distribution((o.e2e_s for o in successes), speed),
        replicas=_replicas(outcomes, speed),
        errors=_errors(outcomes),
        tokens=_tokens(successes),
        client=_client(outcomes, measured.loop_lags_s, speed),
    )


def _distribution(values: Iterable[float | None], speed: float) -> Distribution | None:
    return Distribution.of(value * speed for value in values if value is not None)


def _duration_s(outcomes: Sequence[Outcome]) -> float:
    if not outcomes:
        return 0.0
    first_s = min(outcome.sent_s for outcome in outcomes)
    return max(outcome.ended_s for outcome in outcomes) - first_s


def _per_second(amount: float, duration_s: float) -> float:
    return amount / duration_s if duration_s else 0.0


def _goodput(slo: Slo, outcomes: Sequence[Outcome], speed: float, duration_s: float) -> Goodput:
    met = sum(_meets(slo, outcome, speed) for outcome in outcomes)
    return Goodput(
        met=met,
        share=met / len(outcomes) if outcomes else 0.0,
        rps=_per_second(met, duration_s),
    )


def _meets(slo: Slo, outcome: Outcome, speed: float) -> bool:
    if outcome.failure is not None or outcome.ttft_s is None:
        return False
    tpot_s = outcome.tpot_s
    return slo.met(
        prompt_tokens=outcome.prompt_tokens,
        ttft_s=outcome.ttft_s * speed,
        tpot_s=None if tpot_s is None else tpot_s * speed,
        e2e_s=outcome.e2e_s * speed,
    )


def _throughput(successes: Sequence[Outcome], duration_s: float) -> Throughput:
    return Throughput(
        requests_rps=_per_second(len(successes), duration_s),
        prompt_tokens_per_s=_per_second(sum(o.prompt_tokens for o in successes), duration_s),
        output_tokens_per_s=_per_second(sum(o.generated_tokens for o in successes), duration_s),
    )


def _replicas(outcomes: Sequence[Outcome], speed: float) -> list[ReplicaShare]:
    by_name: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_name[outcome.replica or ""].append(outcome)
    shares = []
    for name, own in sorted(by_name.items()):
        ttft_s = _distribution((o.ttft_s for o in own if o.failure is None), speed)
        shares.append(
            ReplicaShare(
                name=name,
                requests=len(own),
                share=len(own) / len(outcomes),
                prompt_tokens=sum(o.prompt_tokens for o in own),
                output_tokens=sum(o.generated_tokens for o in own),
                failed=sum(o.failure is not None for o in own),
                ttft_p50_s=None if ttft_s is None else ttft_s.p50,
                ttft_p99_s=None if ttft_s is None else ttft_s.p99,
            )
        )
    return shares


def _errors(outcomes: Sequence[Outcome]) -> list[ErrorCount]:
    by_kind: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.kind is not None:
            by_kind[outcome.kind].append(outcome)
    counts = [
        ErrorCount(kind=kind, count=len(failed), example=failed[0].detail)
        for kind, failed in by_kind.items()
    ]
    return sorted(counts, key=lambda error: (-error.count, error.kind))


def _tokens(successes: Sequence[Outcome]) -> TokenCounts:
    counted = [o for o in successes if o.reported_prompt_tokens is not None]
    reported = sum(o.reported_prompt_tokens or 0 for o in counted)
    cached = [o.cached_tokens for o in counted if o.cached_tokens is not None]
    return TokenCounts(
        requests=len(counted),
        prompt_tokens_wanted=sum(o.prompt_tokens for o in counted),
        prompt_tokens_reported=reported,
        output_tokens_wanted=sum(o.output_tokens for o in counted),
        output_tokens_reported=sum(o.generated_tokens for o in counted),
        cached_share=sum(cached) / reported if cached and reported else None,
    )


def _client(
    outcomes: Sequence[Outcome], loop_lags_s: Iterable[float], speed: float
) -> ClientHealth:
    lateness_s = _distribution((max(o.sent_s - o.scheduled_s, 0.0) for o in outcomes), speed)
    loop_lag_s = _distribution(loop_lags_s, speed)
    worst = (d.p99 for d in (lateness_s, loop_lag_s) if d is not None)
    return ClientHealth(
        send_lateness_s=lateness_s,
        loop_lag_s=loop_lag_s,
        limit_s=LATE_LIMIT_S,
        too_slow=max(worst, default=0.0) > LATE_LIMIT_S,
    )
