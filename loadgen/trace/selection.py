"""Which requests of which trace: what the commands that take traces have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadgen.trace import transform
from loadgen.trace.errors import TraceError
from loadgen.trace.names import open_trace

if TYPE_CHECKING:
    from loadgen.trace.request import Trace


@dataclass(slots=True, frozen=True, kw_only=True)
class Selection:
    """A trace by name, and what is done to it; see :mod:`loadgen.trace.transform`."""

    spec: str
    """A file, or a name that :func:`loadgen.trace.names.open_trace` knows."""

    jitter: bool = False
    """Spread volleys, where there are any."""

    seed: int = 0
    """Seed of the jitter; a synthetic trace is drawn by its own seed plus this one."""

    start_s: float = 0.0
    duration_s: float | None = None
    limit: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    rate_scale: float = 1.0

    def open(self) -> Trace:
        """Read the trace and change it, in the order of :mod:`loadgen.trace.transform`.

        Raises:
            TraceError: It cannot be read, or no request is left.
        """
        trace = open_trace(self.spec, seed=self.seed)
        if self.jitter:
            trace = _unless_equal(trace, transform.jitter(trace, self.seed))
        if self.start_s or self.duration_s is not None:
            window = transform.window(trace, self.start_s, self.duration_s)
            trace = _unless_equal(trace, window)
        if self.limit is not None:
            trace = _unless_equal(trace, transform.limit(trace, self.limit))
        if self.max_input_tokens is not None:
            trace = _unless_equal(trace, transform.clip_prompts(trace, self.max_input_tokens))
        if self.max_output_tokens is not None:
            trace = _unless_equal(trace, transform.clip_outputs(trace, self.max_output_tokens))
        if self.rate_scale != 1:
            trace = transform.scale_rate(trace, self.rate_scale)
        if not trace.requests:
            raise TraceError("no request arrives between --start and its end", self.spec)
        return trace


def _unless_equal(trace: Trace, changed: Trace) -> Trace:
    """What was changed; an option for many traces may change nothing in one: no note of that."""
    return trace if changed.requests == trace.requests else changed
