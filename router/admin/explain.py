"""``/explain``: why requests went where they went."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from router.admin.answers import error_answer, json_answer
from router.admin.explained import ExplainPage, told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from router.core.decisions import Decision
    from router.telemetry.status import Status

DEFAULT_LAST = 20
MAX_LAST = 500
"""About 10 ms of work; streams stand still for so long."""


def explain_routes(status: Status) -> list[web.RouteDef]:
    """Make the routes below ``/explain``.

    Args:
        status: The running router.
    """

    async def last(request: web.Request) -> web.Response:
        given = request.query.get("last", str(DEFAULT_LAST))
        if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MAX_LAST):
            message = f"last={given!r} is not allowed; expected a number from 1 to {MAX_LAST}."
            return error_answer(400, "invalid_query", message)
        decisions = status.dispatcher.decisions
        return _page(status, decisions.last(int(given)) if decisions is not None else ())

    async def one(request: web.Request) -> web.Response:
        decisions = status.dispatcher.decisions
        request_id = request.match_info["request_id"]
        found = decisions.of(request_id) if decisions is not None else []
        if found:
            return _page(status, found)
        kept = len(decisions) if decisions is not None else 0
        message = f"The last {kept} decisions hold none about a request {request_id[:80]!r}."
        return error_answer(404, "request_not_found", message)

    return [web.get("/explain", last), web.get("/explain/{request_id:.+}", one)]


def _page(status: Status, found: Iterable[Decision]) -> web.Response:
    decisions, now, wall = status.dispatcher.decisions, status.now(), datetime.now(UTC)
    page = ExplainPage(
        policy=status.policy_name,
        kept=len(decisions) if decisions is not None else 0,
        decisions=[told(decision, now, wall) for decision in found],
    )
    return json_answer(page)
