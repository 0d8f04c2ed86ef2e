"""vLLM, and what speaks like it (llm-d's simulator, ``pointsman replica``).

Names as published by vLLM 0.32, with those of earlier versions behind them: the KV gauge was
``gpu_cache_usage_perc`` once, and the prefix-cache counters began with ``gpu_``, and counted blocks
in the first versions (the hit rate is the same). Shares are 0 to 1 in spite of ``perc``.
"""

from __future__ import annotations

from router.core.sample import Sample
from router.engines.base import UnrecognisedPageError
from router.engines.gauges import first_of, mean_share, total, values, whole
from router.engines.scan import has_prefix, series

_RUNNING = b"vllm:num_requests_running"
_WAITING = b"vllm:num_requests_waiting"
_KV = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc")
_PREEMPTIONS = b"vllm:num_preemptions_total"
_QUERIES = (
    b"vllm:prefix_cache_queries_total",
    b"vllm:gpu_prefix_cache_queries_total",
    b"vllm:gpu_prefix_cache_queries",
)
_HITS = (
    b"vllm:prefix_cache_hits_total",
    b"vllm:gpu_prefix_cache_hits_total",
    b"vllm:gpu_prefix_cache_hits",
)
_CACHE_CONFIG = b"vllm:cache_config_info"
_SLEEP_STATE = b"vllm:engine_sleep_state"


class Vllm:
    """vLLM's OpenAI server."""

    name = "vllm"
    metrics_paths = ("/metrics",)
    health_path = "/health"
    health_optional = False

    def recognises(self, page: bytes) -> bool:
        """Whether a line starts with ``vllm:``."""
        return has_prefix(page, b"vllm:")

    def parse(self, page: bytes) -> Sample:
        """The gauges; see :class:`router.engines.base.Dialect`."""
        running = total(values(series(page, _RUNNING)))
        if running is None and not self.recognises(page):
            msg = "no line starts with vllm: (is vLLM started with --disable-log-stats?)"
            raise UnrecognisedPageError(msg)
        block_tokens, blocks = _cache_config(page)
        return Sample(
            running=running,
            waiting=total(values(series(page, _WAITING))),
            kv_occupancy=mean_share(values(first_of(page, _KV))),
            preemptions_total=total(values(series(page, _PREEMPTIONS))),
            prefix_queries_total=total(values(first_of(page, _QUERIES))),
            prefix_hits_total=total(values(first_of(page, _HITS))),
            kv_block_tokens=block_tokens,
            kv_blocks=blocks,
        )

    def unfit(self, page: bytes) -> str | None:
        """Asleep: ``/health`` stays 200 then, and requests hang until somebody wakes it."""
        for line in series(page, _SLEEP_STATE):
            if line.value == 0 and line.labels.get("sleep_state") == "awake":
                return "asleep (vllm:engine_sleep_state says that it is not awake)"
        return None

    def gaps(self, sample: Sample) -> tuple[str, ...]:
        """Gauges that every vLLM publishes, under one name or another."""
        missed = []
        if sample.running is None:
            missed.append("no usable vllm:num_requests_running")
        if sample.waiting is None:
            missed.append("no usable vllm:num_requests_waiting")
        if sample.kv_occupancy is None:
            missed.append(
                "no usable KV gauge, neither vllm:kv_cache_usage_perc nor vllm:gpu_cache_usage_perc"
            )
        return tuple(missed)


def _cache_config(page: bytes) -> tuple[int | None, int | None]:
    """Tokens a block, and blocks of all ranks together."""
    block_tokens: int | None = None
    blocks: list[float] = []
    for line in series(page, _CACHE_CONFIG):
        labels = line.labels
        block_tokens = whole(labels.get("block_size")) or block_tokens
        if count := whole(labels.get("num_gpu_blocks")):
            blocks.append(count)
    return block_tokens, total(blocks)
