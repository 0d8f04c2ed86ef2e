"""SGLang 0.5.23."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aiohttp import web

from loadgen.replica.exposition import Page
from loadgen.replica.flavours.base import add_own_metrics, openai_error
from loadgen.replica.keys import REPLICA
from loadgen.replica.native import sglang_generate
from loadgen.replica.openai import own_url
from policies.base import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadgen.replica.refusal import Refusal
    from loadgen.replica.simulated import SimulatedReplica

VERSION: Final = "0.5.23"


class Sglang:
    """SGLang, started with ``--enable-metrics``."""

    name = "sglang"
    checks_model = False
    early_headers = True

    def error(self, refusal: Refusal) -> bytes:
        """The JSON of an error."""
        return openai_error(refusal)

    def health(self, replica: SimulatedReplica) -> web.Response:  # noqa: ARG002 - see Flavour
        """Empty; a real one generates a token for it."""
        return web.Response()

    def loading(self) -> web.Response:
        """503 while it starts."""
        return web.Response(status=503)

    def metrics(self, replica: SimulatedReplica) -> bytes:
        """Names and labels as SGLang has them."""
        name = replica.settings.model_names[0]
        page = Page({"engine_type": "unified", "model_name": name, "pp_rank": "0", "tp_rank": "0"})
        for gauge, value in _load(replica).items():
            page.gauge(f"sglang:{gauge}", f"{gauge} of the scheduler.", value)
        seen, engine = replica.statistics, replica.engine
        for counter, total in (
            ("prompt_tokens_total", seen.prompt_tokens_total),
            ("generation_tokens_total", engine.generated_tokens_total),
            ("cached_tokens_total", engine.prefix_hits_total),
            ("num_requests_total", sum(seen.finished_total.values())),
            ("num_aborted_requests_total", seen.finished_total["abort"]),
        ):
            page.counter(f"sglang:{counter}", f"{counter} since the start.", total)
        for histogram, values in (
            ("time_to_first_token_seconds", seen.ttft_s),
            ("inter_token_latency_seconds", seen.itl_s),
            ("e2e_request_latency_seconds", seen.e2e_s),
            ("queue_time_seconds", seen.queue_s),
        ):
            page.histogram(f"sglang:{histogram}", f"Histogram of {histogram}.", values)
        add_own_metrics(page, replica)
        return page.render()

    def routes(self) -> Iterable[web.RouteDef]:
        """Its native generation, and where it tells about itself."""
        return (
            web.post("/generate", sglang_generate),
            web.get("/health_generate", _health_generate),
            web.get("/v1/loads", _loads),
            web.get("/get_load", _get_load),
            web.get("/server_info", _server_info),
            web.get("/get_server_info", _server_info),
            web.get("/model_info", _model_info),
            web.get("/get_model_info", _model_info),
        )


def _load(replica: SimulatedReplica) -> dict[str, float]:
    engine = replica.engine
    size = replica.settings.profile.block_tokens
    used = engine.kv_blocks_in_use * size
    queries = engine.prefix_queries_total
    return {
        "num_running_reqs": len(engine.running),
        "num_queue_reqs": len(engine.waiting),
        "num_used_tokens": used,
        "token_usage": engine.kv_occupancy,
        "max_total_num_tokens": engine.kv_tokens,
        "kv_used_tokens": used,
        "kv_available_tokens": engine.kv_tokens - used,
        "cache_hit_rate": engine.prefix_hits_total / queries if queries else 0.0,
        "num_retracted_reqs": engine.preemptions_total,
        "page_size": size,
        "num_pages": engine.kv_blocks,
        "context_len": replica.max_model_tokens,
    }


async def _health_generate(_: web.Request) -> web.Response:
    return web.Response()


async def _loads(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    replica.driver.refresh()
    load = _load(replica)
    return web.json_response(
        {
            "timestamp": datetime.now(tz=UTC).isoformat(),
            "version": VERSION,
            "dp_rank_count": 1,
            "loads": [
                {
                    "dp_rank": 0,
                    "num_running_reqs": load["num_running_reqs"],
                    "num_waiting_reqs": load["num_queue_reqs"],
                    "num_used_tokens": load["num_used_tokens"],
                    "num_total_tokens": load["num_used_tokens"],
                    "max_total_num_tokens": load["max_total_num_tokens"],
                    "max_running_requests": replica.engine.max_sequences,
                    "token_usage": load["token_usage"],
                    "cache_hit_rate": load["cache_hit_rate"],
                }
            ],
        }
    )


async def _get_load(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    replica.driver.refresh()
    load = _load(replica)
    return web.json_response(
        [
            {
                "dp_rank": 0,
                "num_reqs": load["num_running_reqs"] + load["num_queue_reqs"],
                "num_waiting_reqs": load["num_queue_reqs"],
                "num_tokens": load["num_used_tokens"],
            }
        ]
    )


async def _server_info(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    replica.driver.refresh()
    load = _load(replica)
    return web.json_response(
        {
            "model_path": replica.settings.model_names[0],
            "served_model_name": replica.settings.model_names[0],
            "version": VERSION,
            "disaggregation_mode": _mode(replica),
            "disaggregation_bootstrap_port": int(own_url(request).rpartition(":")[2]),
            "max_total_num_tokens": load["max_total_num_tokens"],
            "internal_states": [{"memory_usage": {"token_capacity": replica.engine.kv_tokens}}],
        }
    )


def _mode(replica: SimulatedReplica) -> str:
    role = replica.settings.role
    return "null" if role is Role.BOTH else role.value


async def _model_info(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    return web.json_response({"model_path": replica.settings.model_names[0], "is_generation": True})
