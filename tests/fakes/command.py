"""``pointsman`` as a process of its own, for commands that end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.fakes.raw_connection import DEADLINE_S


async def start_pointsman(*arguments: str) -> asyncio.subprocess.Process:
    """Start it; its output is piped."""
    command = str(Path(sys.executable).parent / "pointsman")
    return await asyncio.create_subprocess_exec(
        command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def pointsman(*arguments: str) -> tuple[int, str, str]:
    """Run it to its end; returns its status, its output and its errors."""
    process = await start_pointsman(*arguments)
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
