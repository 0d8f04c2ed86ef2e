"""Runs a simulated replica: sockets, signals, and the order in which things end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from aiohttp import web

from loadgen.replica.app import make_app
from loadgen.replica.simulated import SimulatedReplica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from loadgen.replica.settings import ReplicaSettings


@contextlib.asynccontextmanager
async def served(
    settings: ReplicaSettings,
    host: str,
    port: int,
    *,
    crash: Callable[[], None],
    grace_s: float = 0.0,
) -> AsyncIterator[tuple[SimulatedReplica, str]]:
    """A replica that listens as long as the context lasts.

    Args:
        settings: What it is.
        host: Address to listen at.
        port: Port to listen at; 0 for any free one.
        crash: Ends the process at once, for the fault of that name.
        grace_s: How long open requests may go on after the context's end. With 0 they are told
            that the engine has died, as vLLM does by default.

    Yields:
        The replica and its URL.

    Raises:
        OSError: The address cannot be had.
        ValueError: The settings make no sense.
    """
    replica = SimulatedReplica(settings, asyncio.get_running_loop(), crash)
    runner = web.AppRunner(
        make_app(replica), access_log=None, handler_cancellation=True, shutdown_timeout=grace_s or 1
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=4096)
        await site.start()
        yield replica, _url(runner)
        await site.stop()
        if not grace_s:
            replica.fail_all()
    finally:
        await runner.cleanup()
        await replica.fetches.aclose()
        replica.kept.close()
        replica.driver.close()


async def serve(
    settings: ReplicaSettings,
    host: str,
    port: int,
    *,
    refuse_while_loading: bool,
    grace_s: float,
    announce: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: What the replica is.
        host: Address to listen at.
        port: Port to listen at; 0 for any free one.
        refuse_while_loading: Listen only when the model is loaded.
        grace_s: How long open requests may go on after the signal.
        announce: Is told the URL when the replica listens.

    Raises:
        OSError: The address cannot be had.
        ValueError: The settings make no sense.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if refuse_while_loading:
        with contextlib.suppress(TimeoutError):  # the time-out is the loading time
            await asyncio.wait_for(stopped.wait(), settings.load_s)
            return
    async with served(settings, host, port, crash=_die, grace_s=grace_s) as (replica, url):
        if refuse_while_loading:
            replica.load_now()
        announce(url)
        await stopped.wait()


def _die() -> None:
    os._exit(137)


def _url(runner: web.AppRunner) -> str:
    host, port, *rest = runner.addresses[0]
    return f"http://[{host}]:{port}" if rest else f"http://{host}:{port}"
