"""vLLM 0.32."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aiohttp import web

from loadgen.engine.sequence import State
from loadgen.replica.exposition import Page
from loadgen.replica.flavours.base import add_own_metrics, openai_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadgen.replica.refusal import Refusal
    from loadgen.replica.simulated import SimulatedReplica

VERSION: Final = "0.32.0"


class Vllm:
    """vLLM's own server."""

    name = "vllm"
    checks_model = True
    early_headers = True

    def error(self, refusal: Refusal) -> bytes:
        """The JSON of an error."""
        return openai_error(refusal)

    def health(self, replica: SimulatedReplica) -> web.Response:  # noqa: ARG002 - see Flavour
        """Empty, and 200 as long as the process lives."""
        return web.Response()

    def loading(self) -> web.Response:
        """A real one refuses connections while it loads (see ``--refuse-while-loading``)."""
        return web.Response(status=503)

    def metrics(self, replica: SimulatedReplica) -> bytes:
        """Names, labels and buckets as vLLM has them."""
        labels = {"engine": "0", "model_name": replica.settings.model_names[0]}
        page = Page(labels, replica.started_s)
        _gauges(page, replica)
        _counters(page, replica)
        _histograms(page, replica)
        _infos(page, replica)
        add_own_metrics(page, replica)
        return page.render()

    def routes(self) -> Iterable[web.RouteDef]:
        """Version, ping and load."""
        return (
            web.get("/version", _version),
            web.get("/ping", _ping),
            web.get("/load", _load),
        )


async def _version(_: web.Request) -> web.Response:
    return web.json_response({"version": VERSION})


async def _ping(_: web.Request) -> web.Response:
    return web.Response()


async def _load(_: web.Request) -> web.Response:
    return web.json_response({"server_load": 0})


def _gauges(page: Page, replica: SimulatedReplica) -> None:
    engine = replica.engine
    deferred = len(engine.fetching)
    waiting = len(engine.waiting) + deferred
    page.gauge(
        "vllm:num_requests_running",
        "Number of requests in model execution batches.",
        len(engine.running),
    )
    page.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting)
    page.family(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Number of requests waiting to be processed, by reason.",
        "reason",
        {"capacity": waiting - deferred, "deferred": deferred},
    )
    page.family(
        "vllm:engine_sleep_state",
        "gauge",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake.",
        "sleep_state",
        {"awake": 1, "weights_offloaded": 0, "discard_all": 0},
    )
    page.gauge(
        "vllm:kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        engine.kv_occupancy,
    )


def _counters(page: Page, replica: SimulatedReplica) -> None:
    engine, statistics = replica.engine, replica.statistics
    hits = engine.prefix_hits_total
    for name, text, value in (
        ("prefix_cache_queries", "Prefix cache queries, in tokens.", engine.prefix_queries_total),
        ("prefix_cache_hits", "Prefix cache hits, in tokens.", hits),
        ("external_prefix_cache_queries", "External prefix cache queries, in tokens.", 0),
        ("external_prefix_cache_hits", "External prefix cache hits, in tokens.", 0),
        ("mm_cache_queries", "Multi-modal cache queries, in items.", 0),
        ("mm_cache_hits", "Multi-modal cache hits, in items.", 0),
        ("num_preemptions", "Cumulative number of preemptions.", engine.preemptions_total),
        ("prompt_tokens", "Number of prefill tokens.", statistics.prompt_tokens_total),
        ("prompt_tokens_cached", "Number of prefill tokens found in a cache.", hits),
        ("generation_tokens", "Number of generation tokens.", engine.generated_tokens_total),
    ):
        page.counter(f"vllm:{name}_total", text, value)
    page.family(
        "vllm:prompt_tokens_by_source_total",
        "counter",
        "Number of prefill tokens by source.",
        "source",
        {
            "local_compute": max(0, statistics.prompt_tokens_total - hits),
            "local_cache_hit": hits,
            "external_kv_transfer": 0,
        },
    )
    page.family(
        "vllm:request_success_total",
        "counter",
        "Count of processed requests.",
        "finished_reason",
        statistics.finished_total,
    )
    page.family(
        "vllm:admission_rejections_total",
        "counter",
        "Requests rejected at admission.",
        "reason",
        {"max_num_queued_reqs": 0, "max_num_queued_tokens": 0},
    )


def _histograms(page: Page, replica: SimulatedReplica) -> None:
    seen = replica.statistics
    for name, text, histogram in (
        ("request_prompt_tokens", "Number of prefill tokens processed.", seen.prompt_tokens),
        ("request_generation_tokens", "Number of generation tokens processed.",
         seen.generated_tokens),
        ("iteration_tokens_total", "Histogram of number of tokens per engine_step.",
         seen.step_tokens),
        ("request_max_num_generation_tokens",
         "Histogram of maximum number of requested generation tokens.", seen.generated_tokens),
        ("request_params_n", "Histogram of the n request parameter.", seen.choices),
        ("request_params_max_tokens", "Histogram of the max_tokens request parameter.",
         seen.max_tokens),
        ("time_to_first_token_seconds", "Histogram of time to first token in seconds.",
         seen.ttft_s),
        ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.",
         seen.itl_s),
        ("request_time_per_output_token_seconds",
         "Histogram of time per output token in seconds, by request.", seen.tpot_s),
        ("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.",
         seen.e2e_s),
        ("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
         seen.queue_s),
        ("request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.",
         seen.inference_s),
        ("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
         seen.prefill_s),
        ("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
         seen.decode_s),
        ("request_num_preemptions", "Histogram of number of preemptions by request.",
         seen.preemptions),
        ("request_prefill_kv_computed_tokens",
         "Histogram of new KV tokens computed during prefill.", seen.computed_tokens),
    ):  # fmt: skip
        page.histogram(f"vllm:{name}", text, histogram)


def _infos(page: Page, replica: SimulatedReplica) -> None:
    settings = replica.settings
    size = str(settings.profile.block_tokens)
    page.info(
        "vllm:cache_config_info",
        "Information of the LLMEngine CacheConfig.",
        {
            "_block_size_resolved": "True",
            "block_size": size,
            "cache_dtype": "auto",
            "effective_attention_block_size": size,
            "enable_prefix_caching": "True",
            "engine": "0",
            "gpu_memory_utilization": "0.92",
            "num_gpu_blocks": str(replica.engine.kv_blocks),
            "num_gpu_blocks_override": "None",
            "prefix_caching_hash_algo": "sha256",
            "sliding_window": "None",
        },
    )
    if settings.adapters:
        page.info(
            "vllm:lora_requests_info",
            "Running stats on lora requests.",
            {
                "max_lora": str(len(settings.adapters)),
                "running_lora_adapters": ",".join(replica.adapters(State.PREFILL, State.DECODE)),
                "waiting_lora_adapters": ",".join(replica.adapters(State.WAITING)),
            },
            datetime.now(tz=UTC).timestamp(),
        )
