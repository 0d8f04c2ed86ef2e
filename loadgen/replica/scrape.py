"""The metrics page, and all that can be wrong with one."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from loadgen.replica.keys import FLAVOUR, REPLICA

HUGE_BYTES: Final = 32 * 1024 * 1024
SLOW_S: Final = 30.0

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Scrape:
    """Serves ``GET /metrics``."""

    def __init__(self) -> None:
        self._frozen: bytes | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one scrape, in the way that the fault in force wants."""
        replica = request.app[REPLICA]
        fault = replica.faults.metrics
        if fault != "frozen":
            self._frozen = None
        if fault == "error":
            return web.Response(status=500, text="Internal Server Error")
        if fault == "garbage":
            return _page(replica.chance.randbytes(4096))
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        replica.driver.refresh()
        page = request.app[FLAVOUR].metrics(replica)
        if fault == "huge":
            return _page(_padded(page))
        if fault == "frozen":
            self._frozen = self._frozen or page
            return _page(self._frozen)
        return _page(page)


def _page(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": _CONTENT_TYPE})


def _padded(page: bytes) -> bytes:
    lines = b"".join(b'simulated:padding{line="%05d"} 1.0\n' % number for number in range(10_000))
    return page + lines * (HUGE_BYTES // len(lines))
