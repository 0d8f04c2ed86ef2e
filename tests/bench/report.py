"""What the bench prints: medians with their ranges, and the goals as pass or fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tests.bench.peers import CACHE_AWARE, ESTIMATING, SPLITTING, WITHOUT_CONTINUATION

if TYPE_CHECKING:
    from tests.bench.load import Result


@dataclass(slots=True)
class Figures:
    """All that was measured of one peer, a value per round."""

    plain_us: list[float] = field(default_factory=list)
    """CPU µs of the router per unstreamed request."""

    plain_rate: list[float] = field(default_factory=list)
    """Requests per second at that load."""

    chunk_us: list[float] = field(default_factory=list)
    """CPU µs of the router per SSE chunk."""

    chunk_pace: list[float] = field(default_factory=list)
    """Chunks delivered as a share of those due; under 1 the machine fell behind."""

    request_p50_ms: list[float] = field(default_factory=list)
    request_p99_ms: list[float] = field(default_factory=list)
    """Whole unstreamed requests, well below saturation."""

    chunk_p50_ms: list[float] = field(default_factory=list)
    chunk_p99_ms: list[float] = field(default_factory=list)
    """From the replica's write of a chunk to the client's read."""

    errors: int = 0

    def add_plain(self, result: Result) -> None:
        """Take one round of the plain load."""
        self.plain_us.append(result.cpu_s / result.requests * 1e6)
        self.plain_rate.append(result.requests / result.window_s)
        self.errors += result.errors

    def add_paced(self, result: Result) -> None:
        """Take one round of the paced load."""
        p50_ms, p99_ms = _p50_p99(result.latencies_ms)
        self.request_p50_ms.append(p50_ms)
        self.request_p99_ms.append(p99_ms)
        self.errors += result.errors

    def add_chunk(self, result: Result, due: float) -> None:
        """Take one round of the chunk load; ``due`` chunks were to come."""
        self.chunk_us.append(result.cpu_s / result.chunks * 1e6)
        self.chunk_pace.append(result.chunks / due)
        p50_ms, p99_ms = _p50_p99(result.latencies_ms)
        self.chunk_p50_ms.append(p50_ms)
        self.chunk_p99_ms.append(p99_ms)
        self.errors += result.errors


def _p50_p99(values: list[float]) -> tuple[float, float]:
    cuts = quantiles(values, n=100)
    return cuts[49], cuts[98]


@dataclass(slots=True, frozen=True)
class Goal:
    """A figure that must not be passed."""

    text: str
    limit: float
    value: float | None
    """None: it could not be measured here."""

    @property
    def verdict(self) -> str:
        """pass, FAIL or not measured."""
        if self.value is None:
            return "not measured"
        return "pass" if self.value <= self.limit else "FAIL"

    def line(self) -> str:
        """One line for people."""
        shown = "-" if self.value is None else f"{self.value:.2f}"
        return f"{self.verdict:>12}  {self.text}: {shown} (at most {self.limit:.2f})"


def goals(figures: dict[str, Figures], poll_ms: float | None) -> list[Goal]:
    """The goals, judged on the rounds of this very run."""
    sglang = "sglang-router"
    plain, chunk = (_ratio(figures, column, sglang) for column in ("plain_us", "chunk_us"))
    return [
        Goal("CPU per unstreamed request / sglang-router", 0.5, plain),
        Goal("CPU per SSE chunk / sglang-router", 0.8, chunk),
        Goal(
            "CPU per unstreamed request, estimating / sglang-router (cache_aware)",
            0.8,
            _ratio(figures, "plain_us", CACHE_AWARE, ESTIMATING),
        ),
        Goal(
            "CPU per SSE chunk, estimating / sglang-router (cache_aware)",
            0.8,
            _ratio(figures, "chunk_us", CACHE_AWARE, ESTIMATING),
        ),
        Goal(
            "CPU per unstreamed request, splitting / estimating",
            2.2,
            _ratio(figures, "plain_us", ESTIMATING, SPLITTING),
        ),
        Goal("CPU per SSE chunk / nginx", 1.2, _ratio(figures, "chunk_us", "nginx")),
        Goal(
            "CPU per SSE chunk / the same without continuation",
            1.1,
            _ratio(figures, "chunk_us", WITHOUT_CONTINUATION),
        ),
        Goal("CPU ms per 100 KB of polled metrics page", 0.3, poll_ms),
    ]


def _ratio(
    figures: dict[str, Figures], column: str, peer: str, own: str = "pointsman"
) -> float | None:
    """The median of the rounds' ratios: the two of a round were measured a few seconds apart."""
    if peer not in figures or own not in figures:
        return None
    ours, theirs = (getattr(figures[name], column) for name in (own, peer))
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


COLUMNS = [
    ("CPU µs per request", "plain_us", 1),
    ("requests/s", "plain_rate", 0),
    ("CPU µs per chunk", "chunk_us", 1),
    ("chunks on time", "chunk_pace", 3),
    ("request p50 ms", "request_p50_ms", 2),
    ("p99 ms", "request_p99_ms", 2),
    ("chunk p50 ms", "chunk_p50_ms", 2),
    ("p99 ms", "chunk_p99_ms", 2),
]


def table(figures: dict[str, Figures]) -> Table:
    """One row a peer: median of the rounds, and under it the lowest and highest."""
    made = Table(title="router process tree, 4 fake replicas; median (lowest-highest) of rounds")
    made.add_column("router")
    for heading, _, _ in COLUMNS:
        made.add_column(heading, justify="right")
    for name, row in figures.items():
        cells = [_cell(getattr(row, column), digits) for _, column, digits in COLUMNS]
        made.add_row(name, *cells)
    return made


def _cell(values: list[float], digits: int) -> str:
    if not any(values):  # there is no router in between
        return "-"
    low, mid, high = (f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{mid}\n({low}-{high})"


def as_json(figures: dict[str, Figures], made: list[Goal], extra: dict[str, Any]) -> dict[str, Any]:
    """The whole outcome as plain data."""
    columns = [column for _, column, _ in COLUMNS]
    return {
        **extra,
        "routers": {
            name: {column: getattr(row, column) for column in columns} | {"errors": row.errors}
            for name, row in figures.items()
        },
        "goals": [
            {"goal": g.text, "limit": g.limit, "value": g.value, "verdict": g.verdict} for g in made
        ],
    }
