"""Ctrl-C and its kin: a run that is told to end cleans up first."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Coroutine

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def until_signalled(work: Coroutine[None, None, None]) -> signal.Signals | None:
    """Do ``work``, but no longer than until a signal wants an end; then cancel it and wait for it.

    A second signal cancels what ``work`` does to clean up.

    Returns:
        The first signal that came; None when ``work`` was done before any.
    """
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    caught: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        caught.append(number)
        working.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, end, number)
    try:
        await working
    except asyncio.CancelledError:
        if not caught:
            raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
    return caught[0] if caught else None
