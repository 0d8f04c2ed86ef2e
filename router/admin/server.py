"""Serves ``/metrics``, ``/fleet`` and ``/health`` on an address of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from router.addresses import Address
from router.admin.handlers import make_app

if TYPE_CHECKING:
    from router.telemetry.status import Status

log = logging.getLogger("pointsman.admin")

SHUTDOWN_S = 1.0
"""How long requests under way may take at the end; aiohttp's own default is a minute."""


class AdminServer:
    """The admin plane of one router.

    Args:
        status: The running router.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._runner: web.AppRunner | None = None
        self.address: Address | None = None
        """Where it listens, the port that the system chose included; None when it does not."""

    async def start(self, address: Address) -> Address:
        """Begin to listen.

        Returns:
            The address, with the port that the system chose when 0 was asked for.

        Raises:
            OSError: The address cannot be had; the message is one line that names it.
        """
        runner = web.AppRunner(make_app(self._status), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        site: web.BaseSite
        if address.path is not None:
            site = web.UnixSite(runner, address.path)
        else:
            site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            reason = error.strerror or str(error)
            msg = f"the admin plane cannot listen on {address}: {reason}"
            raise OSError(error.errno, msg) from error
        self._runner = runner
        if address.path is None:
            address = Address(address.host, runner.addresses[0][1])
        if not address.loopback:
            log.warning("the admin plane on %s has no password and is not loopback only", address)
        self.address = address
        return address

    async def aclose(self) -> None:
        """Stop listening; what is being answered gets a moment to end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self.address = None
