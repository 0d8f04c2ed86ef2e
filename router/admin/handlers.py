"""What the admin plane answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from router import __version__
from router.admin.answers import error_answer, json_answer
from router.admin.draining import drain_routes
from router.admin.explain import explain_routes
from router.telemetry.estimation_metrics import waiting_by_reason
from router.telemetry.metrics import Metrics
from router.telemetry.page import write_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from router.core.accuracy import Accuracy
    from router.telemetry.status import Status

_PATHS = (
    "/metrics, /fleet, /health, /explain, /explain/REQUEST-ID and /rolling-order, and POST"
    " /drain/REPLICA and /undrain/REPLICA"
)


def make_app(status: Status) -> web.Application:
    """Make the web application of the admin plane.

    Args:
        status: The running router.
    """
    source = Metrics(status)

    async def metrics(request: web.Request) -> web.Response:
        page, kind = await write_page(source.pieces(), request.headers.get("Accept", ""))
        return web.Response(body=page, headers={"Content-Type": kind})

    async def fleet(_: web.Request) -> web.Response:
        return json_answer(fleet_page(status))

    async def health(_: web.Request) -> web.Response:
        return json_answer({"status": "ok"})

    app = web.Application(middlewares=[errors_as_json])
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/fleet", fleet),
            web.get("/health", health),
            *explain_routes(status),
            *drain_routes(status),
        ]
    )
    return app


def fleet_page(status: Status) -> dict[str, object]:
    """Return the whole state of the router as plain data.

    Args:
        status: The running router.
    """
    now = status.now()
    traffic, dispatcher = status.traffic(), status.dispatcher
    dispatcher.estimator.clock.now_s = now  # what is expected is told as of now
    return {
        "version": __version__,
        "uptime_s": round(now - status.started_s, 3),
        "policy": status.policy_name,
        "models": sorted(status.fleet.models()),
        "open_requests": len(dispatcher.open),
        "connections": {
            "client": traffic.client_connections,
            "upstream_busy": traffic.upstream_busy,
            "upstream_idle": traffic.upstream_idle,
        },
        "buffered_bytes": traffic.buffered_bytes,
        "continuation_bytes": traffic.continuation_bytes,
        "held": {
            why: {"requests": requests, "prompt_tokens": tokens}
            for why, (requests, tokens) in waiting_by_reason(dispatcher).items()
        },
        "prediction_error": {
            "ttft": _error_page(dispatcher.estimator.ttft),
            "e2e": _error_page(dispatcher.estimator.e2e),
        },
        "prefix_index": {
            "blocks": dispatcher.prefix_index.blocks,
            "bytes": dispatcher.prefix_index.bytes,
        },
        "replicas": status.fleet.snapshot(now),
    }


def _error_page(accuracy: Accuracy) -> dict[str, object]:
    """How far predictions were off, as a share of what was seen."""
    p50, p90 = accuracy.quantile(0.5), accuracy.quantile(0.9)
    return {
        "count": accuracy.count,
        "p50": None if p50 is None else round(p50, 3),
        "p90": None if p90 is None else round(p90, 3),
    }


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give errors the shape that clients of the data plane know."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error(request, error)


def _error(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPNotFound):
        message = f"The admin plane has no {request.path}; it serves {_PATHS}."
        return error_answer(404, "path_not_found", message)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = " and ".join(sorted(error.allowed_methods - {"HEAD"}))
        message = f"{request.path} answers {allowed} only."
        answer = error_answer(405, "method_not_allowed", message)
        answer.headers["Allow"] = error.headers["Allow"]
        return answer
    return error_answer(error.status, "bad_request", f"{error.reason}.")
