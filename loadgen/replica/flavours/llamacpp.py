"""The server of llama.cpp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from loadgen.replica.exposition import Page
from loadgen.replica.flavours.base import add_own_metrics
from loadgen.replica.keys import REPLICA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadgen.replica.refusal import Refusal
    from loadgen.replica.simulated import SimulatedReplica

_TYPES: Final = {404: "not_found_error", 503: "unavailable_error", 500: "server_error"}


class LlamaCpp:
    """llama-server, started with ``--metrics --slots``."""

    name = "llamacpp"
    checks_model = False
    early_headers = False

    def error(self, refusal: Refusal) -> bytes:
        """The JSON of an error."""
        kind = _TYPES.get(refusal.status, "invalid_request_error")
        if refusal.param == "input_tokens":
            kind = "exceed_context_size_error"
        return msgspec.json.encode(
            {"error": {"code": refusal.status, "message": refusal.message, "type": kind}}
        )

    def health(self, replica: SimulatedReplica) -> web.Response:  # noqa: ARG002 - see Flavour
        """A word of JSON."""
        return web.json_response({"status": "ok"})

    def loading(self) -> web.Response:
        """503 until the model is loaded."""
        error = {"message": "Loading model", "type": "unavailable_error", "code": 503}
        return web.json_response({"error": error}, status=503)

    def metrics(self, replica: SimulatedReplica) -> bytes:
        """Names as llama.cpp has them, without labels."""
        engine, seen = replica.engine, replica.statistics
        page = Page()
        page.counter("llamacpp:prompt_tokens_total", "Number of prompt tokens processed.",
                     seen.prompt_tokens_total)  # fmt: skip
        page.counter("llamacpp:prompt_tokens_cached_total", "Number of prompt tokens reused.",
                     engine.prefix_hits_total)  # fmt: skip
        page.counter("llamacpp:prompt_seconds_total", "Prompt process time.", seen.prefill_s.total)
        page.counter("llamacpp:tokens_predicted_total", "Number of generation tokens processed.",
                     engine.generated_tokens_total)  # fmt: skip
        page.counter("llamacpp:tokens_predicted_seconds_total", "Predict process time.",
                     seen.decode_s.total)  # fmt: skip
        page.counter("llamacpp:n_decode_total", "Total number of llama_decode() calls.",
                     engine.steps_total)  # fmt: skip
        page.gauge("llamacpp:requests_processing", "Number of requests processing.",
                   len(engine.running))  # fmt: skip
        page.gauge("llamacpp:requests_deferred", "Number of requests deferred.",
                   len(engine.waiting))  # fmt: skip
        add_own_metrics(page, replica)
        return page.render()

    def routes(self) -> Iterable[web.RouteDef]:
        """Slots."""
        return (web.get("/slots", _slots),)


async def _slots(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    replica.driver.refresh()
    engine = replica.engine
    busy = len(engine.running)
    slots = [
        {"id": number, "n_ctx": replica.max_model_tokens, "is_processing": number < busy}
        for number in range(engine.max_sequences)
    ]
    if request.query.get("fail_on_no_slot") and busy >= engine.max_sequences:
        error = {"code": 503, "message": "no slot available", "type": "unavailable_error"}
        return web.json_response({"error": error}, status=503)
    return web.json_response(slots)
