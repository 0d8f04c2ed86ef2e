"""``/drain``, ``/undrain`` and ``/rolling-order``: replicas taken out of service, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from router.admin.answers import error_answer, json_answer
from router.core.drain_rules import DrainRefusedError

if TYPE_CHECKING:
    from router.core.fleet import FleetState
    from router.core.replica import Replica
    from router.telemetry.status import Status

_FORCE = {"": True, "1": True, "true": True, "0": False, "false": False}

DETAIL = "asked for on the admin plane"


def drain_routes(status: Status) -> list[web.RouteDef]:
    """Make the routes ``/rolling-order`` and below ``/drain`` and ``/undrain``.

    Args:
        status: The running router.
    """

    async def drain(request: web.Request) -> web.Response:
        replica = _asked_for(request, status.fleet)
        if isinstance(replica, web.Response):
            return replica
        force = _FORCE.get(request.query.get("force", "0"))
        if force is None:
            message = f"force={request.query['force']!r} is not allowed; expected 0 or 1."
            return error_answer(400, "invalid_query", message)
        now = status.now()
        try:
            actions = status.dispatcher.drain(replica.name, now, force=force, detail=DETAIL)
        except DrainRefusedError as error:
            return _refused(error)
        status.perform(actions)
        return _told(replica, now)

    async def undrain(request: web.Request) -> web.Response:
        replica = _asked_for(request, status.fleet)
        if isinstance(replica, web.Response):
            return replica
        now = status.now()
        status.perform(status.dispatcher.undrain(replica.name, now, detail=DETAIL))
        return _told(replica, now)

    async def order(request: web.Request) -> web.Response:
        at_once = request.query.get("at_once", "1")
        if not (at_once.isascii() and at_once.isdigit() and int(at_once)):
            message = f"at_once={at_once!r} is not allowed; expected a number from 1 on."
            return error_answer(400, "invalid_query", message)
        try:
            waves = status.dispatcher.draining.rolling_order(status.now(), at_once=int(at_once))
        except DrainRefusedError as error:
            return _refused(error)
        return json_answer({"waves": waves})

    return [
        web.get("/rolling-order", order),
        web.post("/drain/{replica:.+}", drain),
        web.post("/undrain/{replica:.+}", undrain),
    ]


def _asked_for(request: web.Request, fleet: FleetState) -> Replica | web.Response:
    """The replica that a request names by its name or URL; an error where there is none."""
    if "Origin" in request.headers:
        # Any page that an operator's browser shows could have sent it.
        message = "The admin plane takes no orders from web pages."
        return error_answer(403, "forbidden", message)
    given = request.match_info["replica"]
    found = fleet.replicas.get(given)
    if found is not None:
        return found
    of_url = [r for r in fleet.replicas.values() if r.url.rstrip("/") == given.rstrip("/")]
    if len(of_url) == 1:
        return of_url[0]
    names = ", ".join(fleet.replicas) or "none"
    message = f"There is no replica {given[:200]!r}; there are: {names}."
    return error_answer(404, "replica_not_found", message)


def _refused(error: DrainRefusedError) -> web.Response:
    message = str(error)
    return error_answer(409, "drain_refused", f"{message[:1].upper()}{message[1:]}.")


def _told(replica: Replica, now: float) -> web.Response:
    return json_answer(
        {
            "replica": replica.name,
            "health": replica.health.snapshot(now),
            "in_flight": replica.in_flight,
        }
    )
