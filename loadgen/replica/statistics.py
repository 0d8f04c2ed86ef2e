"""What the replica counts, for its metrics page."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence as Row

    from loadgen.engine.sequence import Sequence

# The buckets of vLLM (vllm/v1/metrics/loggers.py), so that dashboards made for it fit.
TTFT_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_S: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
LATENCY_S: Final = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TOKENS: Final = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
STEP_TOKENS: Final = (1.0, *(float(1 << power) for power in range(3, 15)))
FEW: Final = (1.0, 2.0, 5.0, 10.0, 20.0)


class Histogram:
    """Counts by bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Row[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket, not cumulated; the last one has no bound."""
        self.total = 0.0
        """Sum of all values."""

    def observe(self, value: float, weight: int = 1) -> None:
        """Count ``value``, ``weight`` times."""
        self.counts[bisect_left(self.bounds, value)] += weight
        self.total += value * weight


class Statistics:
    """Counters and histograms over all requests since the start. Times are virtual."""

    def __init__(self) -> None:
        self.finished_total = {
            "stop": 0,
            "length": 0,
            "abort": 0,
            "error": 0,
            "repetition": 0,
        }
        self.prompt_tokens_total = 0
        self.ttft_s = Histogram(TTFT_S)
        self.itl_s = Histogram(ITL_S)
        self.tpot_s = Histogram(ITL_S)
        self.e2e_s = Histogram(LATENCY_S)
        self.queue_s = Histogram(LATENCY_S)
        self.prefill_s = Histogram(LATENCY_S)
        self.decode_s = Histogram(LATENCY_S)
        self.inference_s = Histogram(LATENCY_S)
        self.prompt_tokens = Histogram(TOKENS)
        self.generated_tokens = Histogram(TOKENS)
        self.max_tokens = Histogram(TOKENS)
        self.computed_tokens = Histogram(TOKENS)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.choices = Histogram(FEW)
        self.preemptions = Histogram(FEW)

    def first_token(self, sequence: Sequence) -> None:
        """``sequence`` has its first token."""
        admitted_s, first_s = sequence.admitted_s, sequence.first_token_s
        if admitted_s is None or first_s is None:
            raise ValueError(f"{sequence} has no first token")
        self.prompt_tokens_total += sequence.prompt_tokens
        self.ttft_s.observe(first_s - sequence.arrival_s)
        self.queue_s.observe(admitted_s - sequence.arrival_s)
        self.prefill_s.observe(first_s - admitted_s)

    def finished(self, sequence: Sequence, reason: str) -> None:
        """``sequence`` has ended by itself."""
        self.finished_total[reason] += 1
        end_s = sequence.finished_s
        admitted_s, first_s = sequence.admitted_s, sequence.first_token_s
        if end_s is None or admitted_s is None or first_s is None:
            raise ValueError(f"{sequence} has not finished")
        tokens = sequence.output_tokens
        self.e2e_s.observe(end_s - sequence.arrival_s)
        self.inference_s.observe(end_s - admitted_s)
        self.decode_s.observe(end_s - first_s)
        if tokens > 1:
            self.tpot_s.observe((end_s - first_s) / (tokens - 1))
        self.prompt_tokens.observe(sequence.prompt_tokens)
        self.generated_tokens.observe(tokens)
        self.computed_tokens.observe(sequence.prompt_tokens - sequence.cached_tokens)
        self.preemptions.observe(sequence.preemptions)
