"""The report of a replay: what stands in ``report.json``, in this order.

All times are seconds, as the client saw them, multiplied by ``speed`` (so, with simulated replicas
that run K times as fast, times of the simulated model). Quantiles are nearest-rank: each is a value
that was measured. Figures of requests are over those that succeeded; null where there is nothing
to measure.
"""

from __future__ import annotations

import msgspec

from loadgen.quantiles import Distribution  # noqa: TC001 - msgspec resolves it at run time
from loadgen.trace.summary import TraceSummary  # noqa: TC001 - as above

FORMAT = "pointsman-replay-report"
VERSION = 1

LATE_LIMIT_S = 0.1
"""A client whose p99 lateness is above this is too slow for its figures to be believed."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Requests by how they ended."""

    planned: int
    """In the trace."""

    sent: int
    succeeded: int
    failed: int
    cancelled: int
    """On their way when the run was interrupted."""


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that met the objective; one that failed did not."""

    met: int
    share: float
    """Of requests that ended."""

    rps: float
    """Per second, from the first sending to the last end."""


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """From the first sending to the last end."""

    requests_rps: float
    """Successes per second."""

    prompt_tokens_per_s: float
    output_tokens_per_s: float


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of failure: connect, no_answer, timeout, ``status NNN``, truncated, error_event or
    bad_answer."""

    kind: str
    count: int
    example: str
    """What the first of them said."""


class ReplicaShare(msgspec.Struct, frozen=True, kw_only=True):
    """What went to one replica, as told by the response header ``x-pointsman-replica``."""

    name: str
    """Empty: the answer named none."""

    requests: int
    share: float
    """Of all requests that ended."""

    prompt_tokens: int
    """Wanted, summed."""

    output_tokens: int
    """Generated, summed."""

    failed: int
    ttft_p50_s: float | None
    ttft_p99_s: float | None


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Wanted token counts against those in the server's ``usage``; over successes with usage."""

    requests: int
    prompt_tokens_wanted: int
    prompt_tokens_reported: int
    """Larger by what the chat template adds; else the tokenizer differs."""

    output_tokens_wanted: int
    output_tokens_reported: int
    cached_share: float | None
    """Share of reported prompt tokens found in prefix caches; null when the server is silent."""


class ClientHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How late the client itself was."""

    send_lateness_s: Distribution | None
    """From the scheduled time of a request to its sending."""

    loop_lag_s: Distribution | None
    """How much later than asked the client's event loop woke: as long may an answer have waited
    to be read."""

    limit_s: float
    too_slow: bool
    """Whether either p99 is above the limit: then the figures tell about the client."""


class Report(msgspec.Struct, kw_only=True):
    """The whole report."""

    format: str = FORMAT
    version: int = VERSION
    pointsman: str
    """Version of the program."""

    command: str = ""
    """The command line; empty when it was not one."""

    started: str
    """When the run began, ISO 8601, UTC."""

    url: str
    model: str
    endpoint: str
    speed: float
    timeout_s: float
    salt: str
    """Give it again to send the very same prompts."""

    interrupted: bool
    """Whether the run was stopped before its end."""

    trace: TraceSummary
    """The trace as it was sent; ``changes`` says whether it was jittered, cut or scaled."""

    requests: Counts
    duration_s: float
    """From the first sending to the last end."""

    slo: str
    goodput: Goodput
    throughput: Throughput
    ttft_s: Distribution | None
    """From sending to the first event with a token."""

    itl_s: Distribution | None
    """Gaps between events with tokens, all requests together, failed ones too; events that came
    in one read share its time."""

    tpot_s: Distribution | None
    """(E2E - TTFT) / (n - 1), one value for each request with n > 1 output tokens."""

    e2e_s: Distribution | None
    """From sending to ``[DONE]``, or the end of the stream when that does not come."""

    replicas: list[ReplicaShare]
    errors: list[ErrorCount]
    tokens: TokenCounts
    client: ClientHealth


class _Head(msgspec.Struct):
    format: str
    version: int


class ReportError(ValueError):
    """A file is no report that this version reads."""


def dump_report(report: Report) -> bytes:
    """``report`` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def load_report(data: bytes) -> Report:
    """Read a report.

    Raises:
        ReportError: It is none, or of another version.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
        if (head.format, head.version) == (FORMAT, VERSION):
            return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"is no {FORMAT}: {error}") from error
    raise ReportError(f"is {head.format} version {head.version}, not {FORMAT} version {VERSION}")
