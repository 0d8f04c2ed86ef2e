"""Simulated replicas of every dialect, each a process of its own, and a router before them."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp
import pytest
import pytest_asyncio

from loadgen.trial.processes import Processes
from tests.e2e.marks import e2e
from tests.fakes.serve_process import ServeProcess, eventually
from tests.fakes.streaming_engines import text_of

pytestmark = e2e("split-dialects")

ENGINES = {"nixl": "vllm", "mooncake": "vllm", "p2p": "vllm", "sglang": "sglang", "trtllm": "vllm"}
ROLES = ("prefill", "decode")
DEADLINE_S = 20.0
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WORDS = " ".join(f"word{number}" for number in range(200))


class House:
    """A prefill and a decode replica, one that does both, and the router before the first two."""

    def __init__(self, dialect, router, urls, session):
        self.dialect, self.router, self.urls, self.session = dialect, router, urls, session

    async def ask(self, url, path, **more):
        asked = {"model": "m", "max_tokens": 30, **more}
        asked |= (
            {"messages": [{"role": "user", "content": WORDS}]}
            if path == CHAT
            else {"prompt": WORDS}
        )
        fields = {"X-Request-Id": "mine"}
        async with self.session.post(url + path, json=asked, headers=fields) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers.getall("X-Request-Id") == ["mine"]
            return await answer.read()

    async def kept(self, role):
        async with self.session.get(f"{self.urls[role]}/kv") as page:
            return await page.json()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=ENGINES)
async def house(request, tmp_path_factory):
    dialect, folder = request.param, tmp_path_factory.mktemp(request.param)
    async with AsyncExitStack() as stack:
        processes = await stack.enter_async_context(Processes())
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        )
        urls = {}
        for role in (*ROLES, "both"):
            arguments = ["replica", "--port", "0", "--model", "m", "--load-time", "0"]
            arguments += ["--engine", ENGINES[dialect], "--speed", "5"]
            if role != "both":
                arguments += ["--role", role, "--kv-dialect", dialect]
            child = await processes.start(role, arguments)
            urls[role] = "http://" + await child.told("http://")
        config = {
            "split": {"kv_dialect": dialect},
            "policy": {"options": {"split": "always"}},
            "replicas": [entry(dialect, role, urls[role]) for role in ROLES],
        }
        router = ServeProcess(config, folder)
        await router.start()
        stack.push_async_callback(router.stop)
        one = House(dialect, router, urls, session)
        await known(one)
        yield one


def entry(dialect, role, url):
    """SGLang's servers tell their roles, and where they are met, themselves."""
    address = url.removeprefix("http://")
    made = {"url": url}
    if dialect != "sglang":
        made |= {"role": role, "kv_address": address if dialect == "p2p" else ""}
    if dialect == "mooncake":
        made["bootstrap_port"] = int(address.rpartition(":")[2])
    return made


async def known(house):
    """Wait until both replicas are ready, and have said what they are."""

    async def look():
        views = (await house.router.fleet())["replicas"]
        ready = all(view["ready"] for view in views)
        return ready and {view["role"] for view in views} == set(ROLES)

    async with asyncio.timeout(DEADLINE_S):
        await eventually(look)


async def splits(house):
    lines = (await house.router.metrics()).splitlines()
    rows = [line for line in lines if line.startswith("pointsman_splits_total")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in rows}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_streams_and_whole_answers_are_those_of_one_replica(house, path):
    before = await splits(house)
    told = json.loads(await house.ask(house.router.url, path))
    alone = json.loads(await house.ask(house.urls["both"], path))
    for key in ("message", "text", "finish_reason"):
        assert told["choices"][0].get(key) == alone["choices"][0].get(key)
    details = told["usage"].pop("prompt_tokens_details")
    if house.dialect in {"nixl", "p2p", "trtllm"}:  # in the others nobody waits for the prefill's
        assert details["cached_tokens"] < 16
    del alone["usage"]["prompt_tokens_details"]
    assert told["usage"] == alone["usage"]
    kind = "chat" if path == CHAT else "completion"
    stream = await house.ask(house.router.url, path, stream=True)
    whole = await house.ask(house.urls["both"], path, stream=True)
    assert text_of(stream, kind)[0] == text_of(whole, kind)[0]
    after = await splits(house)
    assert after["begun"] - before["begun"] == 2
    assert after["unusable"] == before["unusable"]

    async def nothing_kept():
        return not any([(await house.kept(role))["pinned"] for role in ROLES])

    async with asyncio.timeout(DEADLINE_S):
        await eventually(nothing_kept)
    await house.router.drained()
