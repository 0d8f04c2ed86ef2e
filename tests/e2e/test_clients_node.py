"""The official Node library. It is installed on first use, from the lockfile beside it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.marks import e2e
from tests.fakes.api_replica import TEXT, WORDS, answer

pytestmark = [*e2e("clients-node"), pytest.mark.timeout(240)]

FOLDER = Path(__file__).parent / "node"
ENVIRONMENT = Path(sys.executable).parent


async def run(program, *arguments):
    """Run a program of the test environment, or else of the machine."""
    beside = ENVIRONMENT / program
    path = str(beside) if beside.exists() else shutil.which(program)
    assert path, f"{program} is missing: the group `test` of pyproject.toml brings it"
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        cwd=FOLDER,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    return output


async def test_the_node_library(router, replica):
    if not (FOLDER / "node_modules" / "openai" / "package.json").exists():
        await run("npm", "ci")
    replica.respond = answer
    got = json.loads(await run("node", "client.mjs", router.url + "/v1"))
    assert got["whole"] == got["completion"] == got["response"] == TEXT
    assert got["streamed"] == WORDS
    assert got["usage"] == 12
    assert got["embedding"] == [0.25, -1.5]
    assert got["models"] == ["m"]
    assert got["transcription"].endswith(" bytes")
    assert got["unknown"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
    assert got["limited"]["name"] == "RateLimitError"
    assert got["first"] == WORDS[0]
    assert got["many"] == 1
