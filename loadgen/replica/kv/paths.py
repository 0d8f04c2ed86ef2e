"""Where replicas meet over KV, and where people see what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from loadgen.replica.keys import REPLICA
from loadgen.replica.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadgen.replica.simulated import SimulatedReplica


def routes() -> Iterable[web.RouteDef]:
    """All of them."""
    return (
        web.get("/kv", _shown),
        web.get("/kv/{key}", _hold),
        web.delete("/kv/{key}", _let_go),
        web.get("/query", _query),
    )


async def _shown(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    replica.driver.refresh()
    return web.json_response(
        {
            "kept": [shown._asdict() for shown in replica.kept.shown()],
            "pinned": len(replica.engine.pinned),
            "running": len(replica.engine.running),
            "fetching": len(replica.engine.fetching),
            "expired_total": replica.kept.expired_total,
        }
    )


async def _hold(request: web.Request) -> web.StreamResponse:
    """Answered when there is something to fetch; open until it was let go of."""
    replica, key = request.app[REPLICA], request.match_info["key"]
    wanted = request.query.get("engine_id")
    if wanted is not None and wanted != replica.settings.engine_id:
        raise Refusal(404, f"engine {wanted} is not here", "NotFoundError")
    store = replica.kept
    # Where both legs are sent at once the other one may not be here yet.
    kept = await store.come(key) if _at_once(replica) else store.find(key)
    if kept is None:
        raise Refusal(404, f"nothing is kept under {key}", "NotFoundError")
    store.hold(kept)
    try:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{}\n")
        await kept.gone()
        await response.write_eof()
    finally:
        store.unhold(kept)
    return response


async def _let_go(request: web.Request) -> web.Response:
    request.app[REPLICA].kept.let_go(request.match_info["key"])
    return web.Response(status=204)


async def _query(request: web.Request) -> web.Response:
    """The bootstrap server of vLLM's Mooncake connector."""
    replica = request.app[REPLICA]
    return web.json_response({"0": {"engine_id": replica.settings.engine_id, "worker_addr": {}}})


def _at_once(replica: SimulatedReplica) -> bool:
    return replica.settings.kv_dialect in {"sglang", "mooncake"}
