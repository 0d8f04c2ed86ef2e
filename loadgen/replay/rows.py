"""A report as rows of text: the one place that says how a figure is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadgen.quantiles import Distribution
    from loadgen.replay.report import Report

NONE = "-"


def count_rows(report: Report) -> list[tuple[str, str]]:
    """The figures that are no times, name and value; every report has the same names."""
    busiest = max((r.share for r in report.replicas if r.name), default=None)
    lateness_s = report.client.send_lateness_s
    return [
        ("requests sent", str(report.requests.sent)),
        ("failed", str(report.requests.failed)),
        ("goodput", f"{report.goodput.rps:.2f} req/s"),
        ("within SLO", percent(report.goodput.share)),
        ("output tokens/s", f"{report.throughput.output_tokens_per_s:.0f}"),
        ("prompt tokens cached", percent(report.tokens.cached_share)),
        ("busiest replica's share", percent(busiest)),
        ("client late p99", NONE if lateness_s is None else duration(lateness_s.p99)),
    ]


def time_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """The measured times: name, p50, p90 and p99."""
    named = (
        ("TTFT", report.ttft_s),
        ("ITL", report.itl_s),
        ("TPOT", report.tpot_s),
        ("E2E", report.e2e_s),
    )
    return [(name, *_quantiles(distribution)) for name, distribution in named]


def _quantiles(distribution: Distribution | None) -> tuple[str, str, str]:
    if distribution is None:
        return (NONE, NONE, NONE)
    return (
        duration(distribution.p50),
        duration(distribution.p90),
        duration(distribution.p99),
    )


def duration(seconds: float) -> str:
    """A time, in the unit that suits it."""
    if seconds < 0.0995:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


def percent(share: float | None) -> str:
    """A share of 0 to 1."""
    return NONE if share is None else f"{share:.1%}"


def warnings(report: Report) -> list[str]:
    """What a reader of ``report`` must know before believing it."""
    found = []
    trace, tokens, client = report.trace, report.tokens, report.client
    if report.interrupted:
        found.append("interrupted: the figures are of a part of the trace")
    if client.too_slow:
        found.append(
            f"the client was too slow (p99 of its lateness above {duration(client.limit_s)}): "
            "these figures are not the server's"
        )
    if trace.shared_time_share > 0.5 and trace.requests > 1:
        found.append(
            f"{percent(trace.shared_time_share)} of requests arrive in volleys at equal times; "
            "--jitter spreads them"
        )
    if tokens.requests and not _close(tokens.prompt_tokens_reported, tokens.prompt_tokens_wanted):
        ratio = tokens.prompt_tokens_reported / tokens.prompt_tokens_wanted
        found.append(f"the server counts {ratio:.2f} x the prompt tokens wanted")
    if tokens.requests and not _close(tokens.output_tokens_reported, tokens.output_tokens_wanted):
        ratio = tokens.output_tokens_reported / tokens.output_tokens_wanted
        found.append(f"the server generated {ratio:.2f} x the output tokens wanted")
    return found


def _close(reported: int, wanted: int) -> bool:
    return abs(reported - wanted) <= 0.1 * wanted
