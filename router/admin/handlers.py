"""What the admin plane answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from router import __version__
from router.telemetry.metrics import Metrics
from router.telemetry.page import write_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from router.telemetry.status import Status

_PATHS = "/metrics, /fleet and /health"


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
        return _json(fleet_page(status))

    async def health(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    app = web.Application(middlewares=[errors_as_json])
    app.add_routes(
        [web.get("/metrics", metrics), web.get("/fleet", fleet), web.get("/health", health)]
    )
    return app


def fleet_page(status: Status) -> dict[str, object]:
    """Return the whole state of the router as plain data.

    Args:
        status: The running router.
    """
    now = status.now()
    traffic = status.traffic()
    return {
        "version": __version__,
        "uptime_s": round(now - status.started_s, 3),
        "policy": status.policy_name,
        "models": sorted(status.fleet.models()),
        "open_requests": len(status.dispatcher.open),
        "connections": {
            "client": traffic.client_connections,
            "upstream_busy": traffic.upstream_busy,
            "upstream_idle": traffic.upstream_idle,
        },
        "buffered_bytes": traffic.buffered_bytes,
        "continuation_bytes": traffic.continuation_bytes,
        "replicas": status.fleet.snapshot(now),
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
    if error.status == 404:
        message = f"The admin plane has no {request.path}; it serves {_PATHS}."
        code = "path_not_found"
    elif error.status == 405:
        message = f"{request.path} answers GET only."
        code = "method_not_allowed"
    else:
        message, code = f"{error.reason}.", "bad_request"
    detail = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    response = _json({"error": detail}, error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _json(value: object, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")
