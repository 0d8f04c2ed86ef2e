"""What every request passes before its handler: request id, loading, faults, and errors' words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from aiohttp import web

from loadgen.replica.keys import FLAVOUR, REPLICA
from loadgen.replica.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadgen.replica.faults import ErrorFault
    from loadgen.replica.simulated import SimulatedReplica

FAULTS_PATH: Final = "/faults"

INFERENCE_PATHS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/generate",
        "/generate_stream",
    }
)
"""What the fault ``errors`` hits, and ``hang`` even when health is answered."""

SLOW_HEALTH_S: Final = 30.0


@web.middleware
async def gate(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let a request through, or refuse it; echo its id."""
    response = await _admit(request, handler)
    if not response.prepared:
        response.headers.setdefault("X-Request-Id", request_id(request))
    return response


def request_id(request: web.Request) -> str:
    """The id that the client gave to a request, or a fresh one."""
    return request.headers.get("X-Request-Id") or uuid4().hex


async def _admit(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    flavour = request.app[FLAVOUR]
    if request.path == FAULTS_PATH:
        return await _worded(request, handler)
    replica = request.app[REPLICA]
    if not replica.loaded:
        return flavour.loading()
    await _hang(request.path, replica)
    if request.path in INFERENCE_PATHS:
        fault = replica.faults.errors
        if fault is not None and replica.chance.random() < fault.share:
            return _error(request, fault)
    elif request.path in {"/health", "/health_generate"} and replica.faults.health != "ok":
        if replica.faults.health == "slow":
            await asyncio.sleep(SLOW_HEALTH_S)
        else:
            return web.Response(status=503)
    return await _worded(request, handler)


async def _worded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return refused(request, refusal)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kind = "NotFoundError" if error.status == 404 else "BadRequestError"
        return refused(request, Refusal(error.status, error.reason, kind))


def refused(request: web.Request, refusal: Refusal) -> web.Response:
    """The answer to a request that is refused."""
    body = request.app[FLAVOUR].error(refusal)
    return web.Response(body=body, status=refusal.status, content_type="application/json")


async def _hang(path: str, replica: SimulatedReplica) -> None:
    hang = replica.faults.hang
    if hang is not None and (path in INFERENCE_PATHS or not hang.health):
        await replica.faults.answering()


def _error(request: web.Request, fault: ErrorFault) -> web.Response:
    text = "This error was asked for."
    response = refused(request, Refusal(fault.status, text, "InternalServerError"))
    if fault.retry_after_s is not None:
        response.headers["Retry-After"] = str(fault.retry_after_s)
    return response
