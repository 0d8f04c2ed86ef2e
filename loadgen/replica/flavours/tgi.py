"""Text Generation Inference 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from loadgen.replica.exposition import Page
from loadgen.replica.flavours.base import add_own_metrics
from loadgen.replica.keys import REPLICA
from loadgen.replica.native import tgi_generate, tgi_generate_stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadgen.replica.refusal import Refusal
    from loadgen.replica.simulated import SimulatedReplica

_TYPES: Final = {400: "validation", 404: "validation", 422: "validation", 429: "overloaded"}


class Tgi:
    """Hugging Face's server."""

    name = "tgi"
    checks_model = False
    early_headers = True

    def error(self, refusal: Refusal) -> bytes:
        """The JSON of an error: a text and a type."""
        kind = _TYPES.get(refusal.status, "generation")
        return msgspec.json.encode({"error": refusal.message, "error_type": kind})

    def health(self, replica: SimulatedReplica) -> web.Response:  # noqa: ARG002 - see Flavour
        """Empty."""
        return web.Response()

    def loading(self) -> web.Response:
        """503 until the model is loaded."""
        error = {"error": "unhealthy", "error_type": "healthcheck"}
        return web.json_response(error, status=503)

    def metrics(self, replica: SimulatedReplica) -> bytes:
        """Names as TGI has them; it has no labels for the model and no KV occupancy."""
        engine, seen = replica.engine, replica.statistics
        page = Page()
        page.gauge("tgi_queue_size", "Requests in the queue.", len(engine.waiting))
        page.gauge("tgi_batch_current_size", "Requests in the batch.", len(engine.running))
        in_use = engine.kv_blocks_in_use * replica.settings.profile.block_tokens
        page.gauge("tgi_batch_current_max_tokens", "Tokens reserved for the batch.", in_use)
        done = sum(seen.finished_total.values())
        page.counter("tgi_request_count", "Requests.", done + replica.driver.open)
        page.counter("tgi_request_success", "Requests that were answered.",
                     done - seen.finished_total["abort"])  # fmt: skip
        page.family(
            "tgi_request_failure",
            "counter",
            "Requests that failed.",
            "err",
            {"overloaded": 0, "validation": 0, "generation": 0, "dropped": 0},
        )
        for name, text, histogram in (
            ("request_duration", "Seconds of a request.", seen.e2e_s),
            ("request_queue_duration", "Seconds in the queue.", seen.queue_s),
            ("request_inference_duration", "Seconds in the batch.", seen.inference_s),
            ("request_mean_time_per_token_duration", "Seconds for each token.", seen.tpot_s),
            ("request_generated_tokens", "Tokens of the answer.", seen.generated_tokens),
            ("request_input_length", "Tokens of the prompt.", seen.prompt_tokens),
            ("request_max_new_tokens", "Tokens asked for.", seen.max_tokens),
        ):
            page.histogram(f"tgi_{name}", text, histogram)
        add_own_metrics(page, replica)
        return page.render()

    def routes(self) -> Iterable[web.RouteDef]:
        """Its native generation, and what it says of itself."""
        return (
            web.post("/generate", tgi_generate),
            web.post("/generate_stream", tgi_generate_stream),
            web.get("/info", _info),
        )


async def _info(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    return web.json_response(
        {
            "model_id": replica.settings.model_names[0],
            "max_concurrent_requests": replica.engine.max_sequences,
            "max_input_tokens": replica.max_model_tokens - 1,
            "max_total_tokens": replica.max_model_tokens,
            "version": "3.3.6",
        }
    )
