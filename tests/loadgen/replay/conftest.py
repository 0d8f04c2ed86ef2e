"""Scripted servers for the replay client."""

from __future__ import annotations

import pytest

from tests.fakes.scripted_server import ScriptedServer, ServerThread


@pytest.fixture
async def server():
    async with ScriptedServer().running() as scripted:
        yield scripted


@pytest.fixture
def server_thread():
    with ServerThread() as running:
        yield running
