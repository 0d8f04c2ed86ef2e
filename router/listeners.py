"""The sockets that clients connect to."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from router.addresses import Address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

BACKLOG = 4096
"""Connections that the kernel holds while the router is busy."""


class Listeners:
    """Listening sockets, TCP and Unix.

    Args:
        loop: The event loop.
        protocol: Makes the protocol of one new connection.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._loop = loop
        self._protocol = protocol
        self._servers: list[asyncio.Server] = []
        self.addresses: list[Address] = []
        """Where they listen, with the ports that the system chose."""

    @property
    def urls(self) -> list[str]:
        """The URLs that clients can use."""
        return [url_of(address) for address in self.addresses]

    async def open(self, address: Address) -> None:
        """Listen on ``address``.

        Raises:
            OSError: That cannot be had; the message names the address.
        """
        try:
            if address.path is not None:
                _remove_stale_socket(Path(address.path))
                server = await self._loop.create_unix_server(
                    self._protocol, address.path, backlog=BACKLOG
                )
            else:
                server = await self._loop.create_server(
                    self._protocol, address.host, address.port, backlog=BACKLOG
                )
                address = Address(address.host, server.sockets[0].getsockname()[1])
        except OSError as error:
            reason = error.strerror or str(error)
            msg = f"cannot listen on {address}: {reason}"
            raise OSError(error.errno, msg) from error
        self._servers.append(server)
        self.addresses.append(address)

    def close(self) -> None:
        """Accept no more connections, and remove the files of Unix sockets.

        Connections that are open stay so.
        """
        for server in self._servers:
            server.close()
        self._servers.clear()
        for address in self.addresses:
            if address.path is not None:
                Path(address.path).unlink(missing_ok=True)
        self.addresses.clear()


def url_of(address: Address) -> str:
    """The URL of what listens on ``address``."""
    return f"http+unix://{address.path}" if address.path is not None else f"http://{address}"


def _remove_stale_socket(path: Path) -> None:
    """A socket that a killed process left behind must not keep its successor from starting."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
