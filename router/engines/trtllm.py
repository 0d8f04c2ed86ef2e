"""TensorRT-LLM (``trtllm-serve``): Prometheus at ``/prometheus/metrics``, JSON at ``/metrics``.

The JSON is a list of iterations, and reading it drains it: whoever else reads it misses what we
took. So the Prometheus page comes first, which needs ``return_perf_metrics``. An empty list says
that no iteration ended since the last look. The engine is idle then, or in a long prefill: nobody
can tell, so nothing is claimed, and the router goes by its own bookkeeping.
"""

from __future__ import annotations

import msgspec

from router.core.sample import Sample
from router.engines.base import UnrecognisedPageError
from router.engines.gauges import JsonCount, mean_share, total, values
from router.engines.scan import has_prefix, series


class _KvCache(msgspec.Struct, rename="camel"):
    max_num_blocks: JsonCount = 0
    used_num_blocks: JsonCount = 0
    tokens_per_block: JsonCount = 0
    reused_blocks: JsonCount | None = None
    missed_blocks: JsonCount | None = None


class _Iteration(msgspec.Struct, rename="camel"):
    num_active_requests: JsonCount
    num_queued_requests: JsonCount | None = None
    attention_dp_rank: JsonCount | None = None
    kv_cache_stats: _KvCache | None = None


_JSON = msgspec.json.Decoder(list[_Iteration])


class Trtllm:
    """``trtllm-serve``."""

    name = "trtllm"
    metrics_paths = ("/prometheus/metrics", "/metrics")
    health_path = "/health"
    health_optional = False

    def recognises(self, page: bytes) -> bool:
        """Whether a line starts with ``trtllm_``, or the page is a list of iterations."""
        if has_prefix(page, b"trtllm_"):
            return True
        try:
            _iterations(page)
        except UnrecognisedPageError:
            return False
        return True

    def parse(self, page: bytes) -> Sample:
        """The gauges; see :class:`router.engines.base.Dialect`."""
        if page.lstrip()[:1] == b"[":
            return _from_iterations(_iterations(page))
        if not has_prefix(page, b"trtllm_"):
            msg = "no line starts with trtllm_ (does return_perf_metrics stand in its options?)"
            raise UnrecognisedPageError(msg)
        return Sample(
            running=total(values(series(page, b"trtllm_num_requests_running"))),
            waiting=total(values(series(page, b"trtllm_num_requests_waiting"))),
            kv_occupancy=mean_share(values(series(page, b"trtllm_kv_cache_utilization"))),
            prefix_queries_total=total(values(series(page, b"trtllm_prompt_tokens_total"))),
            prefix_hits_total=total(values(series(page, b"trtllm_prompt_cached_tokens_total"))),
            kv_block_tokens=total(values(series(page, b"trtllm_kv_cache_tokens_per_block")[:1])),
            kv_blocks=total(values(series(page, b"trtllm_kv_cache_max_blocks"))),
        )

    def unfit(self, page: bytes) -> str | None:  # noqa: ARG002 - the page tells nothing of it
        """Never by its metrics."""
        return None

    def gaps(self, sample: Sample) -> tuple[str, ...]:
        """Nothing when nothing was claimed; else what either page should tell."""
        if sample == Sample():
            return ()
        missed = []
        if sample.running is None:
            missed.append("no usable trtllm_num_requests_running")
        if sample.waiting is None:
            missed.append("no usable trtllm_num_requests_waiting")
        if sample.kv_occupancy is None:
            missed.append("no usable trtllm_kv_cache_utilization, nor kvCacheStats in the JSON")
        return tuple(missed)


def _iterations(page: bytes) -> list[_Iteration]:
    try:
        return _JSON.decode(page)
    except msgspec.MsgspecError as error:
        msg = f"neither gauges nor iterations of TensorRT-LLM: {error}"
        raise UnrecognisedPageError(msg) from error


def _from_iterations(iterations: list[_Iteration]) -> Sample:
    last = list({iteration.attention_dp_rank: iteration for iteration in iterations}.values())
    caches = [i.kv_cache_stats for i in last if i.kv_cache_stats is not None]
    return Sample(
        running=total(i.num_active_requests for i in last),
        waiting=total(i.num_queued_requests for i in last if i.num_queued_requests is not None),
        kv_occupancy=mean_share(
            c.used_num_blocks / c.max_num_blocks for c in caches if c.max_num_blocks > 0
        ),
        prefix_queries_total=_tokens(caches, hits_only=False),
        prefix_hits_total=_tokens(caches, hits_only=True),
        kv_block_tokens=caches[0].tokens_per_block or None if caches else None,
        kv_blocks=total(c.max_num_blocks for c in caches),
    )


def _tokens(caches: list[_KvCache], *, hits_only: bool) -> int | None:
    """Prompt tokens looked up in the prefix cache, or found there; counted in whole blocks."""
    tokens: list[float] = []
    for cache in caches:
        if cache.reused_blocks is None or cache.missed_blocks is None:
            return None
        blocks = cache.reused_blocks + (0 if hits_only else cache.missed_blocks)
        tokens.append(blocks * cache.tokens_per_block)
    return total(tokens)
