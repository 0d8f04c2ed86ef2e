"""Streams of real processes that are killed go on elsewhere, and their clients see one answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import openai
import pytest
import pytest_asyncio

from loadgen.trial.processes import Processes
from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.serve_process import ServeProcess, eventually
from tests.fakes.streaming_engines import text_of

pytestmark = e2e("continuation")

FLEET = {"vllm": ("v", 3), "sglang": ("s", 2), "llamacpp": ("l", 2)}
"""By engine: the name of the model, and how many replicas serve it."""
SPEED = 2
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
KINDS = {CHAT: "chat", COMPLETIONS: "completion"}
TOKENS = 60
CONTINUED = 'pointsman_continuations_total{outcome="continued"}'


def body_of(path, model, ask="Why?", **more):
    """A request whose answer has 60 tokens at most."""
    asked = {"prompt": ask} if path == COMPLETIONS else {"messages": [user(ask)]}
    usage = {"stream_options": {"include_usage": True}}
    fields = {"model": model, "stream": True, "max_tokens": TOKENS, **usage, **asked, **more}
    return json.dumps(fields).encode()


def user(ask):
    return {"role": "user", "content": ask}


class Replicas:
    """Simulated replicas, each a process of its own."""

    def __init__(self, processes):
        self._processes = processes
        self._children = {}
        self.urls = {}

    async def start(self, engine, model, port=0):
        name = f"{engine} {len(self._children) + 1}"
        arguments = ["replica", "--port", str(port), "--engine", engine, "--model", model]
        arguments += ["--speed", str(SPEED), "--load-time", "0"]
        child = await self._processes.start(name, arguments)
        url = "http://" + await child.told("http://")
        self._children[url] = child
        self.urls.setdefault(model, [])
        if url not in self.urls[model]:
            self.urls[model].append(url)

    async def kill(self, url):
        """SIGKILL, in the midst of whatever it does."""
        await self._children[url].kill()

    async def restart(self, url):
        model, engine = next(
            (model, engine) for engine, (model, _) in FLEET.items() if url in self.urls[model]
        )
        await self.start(engine, model, int(url.rpartition(":")[2]))

    @asynccontextmanager
    async def cutting(self, urls, **cut):
        """For the time of the block these break their streams."""
        async with aiohttp.ClientSession() as session:
            for url in urls:
                async with session.post(f"{url}/faults", json={"cut": cut}) as answer:
                    assert answer.status == 200
            try:
                yield
            finally:
                for url in urls:
                    async with session.delete(f"{url}/faults") as answer:
                        assert answer.status == 200

    async def unbroken(self, path, body, model):
        """The answer as a replica gives it that nobody disturbs."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.urls[model][0] + path, data=body) as answer,
        ):
            assert answer.status == 200
            return await answer.read()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet():
    async with Processes() as processes:
        made = Replicas(processes)
        for engine, (model, count) in FLEET.items():
            await asyncio.gather(*(made.start(engine, model) for _ in range(count)))
        yield made


def config_of(fleet, **more):
    replicas = [
        {"url": url, "engine": engine}
        for engine, (model, _) in FLEET.items()
        for url in fleet.urls[model]
    ]
    polling = {"interval_s": 0.05}
    return {"replicas": replicas, "policy": {"name": "round_robin"}, "polling": polling, **more}


async def all_ready(process):
    async def look():
        return all(replica["ready"] for replica in (await process.fleet())["replicas"])

    async with asyncio.timeout(20):
        await eventually(look)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_router(fleet, tmp_path_factory):
    process = ServeProcess(config_of(fleet), tmp_path_factory.mktemp("serve"))
    await process.start()
    yield process
    await process.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def router(module_router, fleet):
    await all_ready(module_router)
    await vouch(module_router, fleet)
    yield module_router
    await module_router.drained()


async def vouch(router, fleet):
    """Let each replica answer well for a while: one that only ever breaks is taken out of
    service, and there would be nothing to continue."""
    async with raw_client(router.url) as client:
        for model, urls in fleet.urls.items():
            for _ in range(4 * len(urls)):
                body = json.dumps({"model": model, "prompt": "Well?", "max_tokens": 1})
                client.write(request("POST", COMPLETIONS, body.encode()))
                assert (await client.answer()).status == 200


def check(path, told, unbroken):
    """What the client was told reads like the answer of one replica."""
    kind = KINDS[path]
    text, chunks = text_of(told, kind)
    wanted_text, wanted = text_of(unbroken, kind)
    assert text == wanted_text
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert told.count(b'"role":"assistant"') == unbroken.count(b'"role":"assistant"')
    assert usages(chunks) == usages(wanted)
    assert finishes(chunks) == finishes(wanted)
    assert told.count(b"[DONE]") == 1
    assert told.endswith(b"data: [DONE]\n\n")
    assert b"token_ids" not in told.replace(b'token_ids":null', b"")


def usages(chunks):
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    told = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return [[usage[name] for name in names] for usage in told]


def finishes(chunks):
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


async def metric(router, line):
    page = await router.metrics()
    found = [text for text in page.splitlines() if text.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


async def begun(client, path, body, version="HTTP/1.1"):
    """Ask for a stream and wait for its first tokens; returns who writes it."""
    client.write(request("POST", path, body, version=version))
    async with asyncio.timeout(20):
        while client.received.count(b"data:") < 4:
            assert await client.more(), bytes(client.received)
    head = bytes(client.received).lower().partition(b"\r\n\r\n")[0]
    assert b"content-length" not in head
    name = head.partition(b"x-pointsman-replica: ")[2].partition(b"\r\n")[0]
    return f"http://{name.decode()}"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_a_stream_outlives_the_process_that_wrote_it(router, fleet, path, version):
    body = body_of(path, "v", f"So {version}?")
    unbroken = await fleet.unbroken(path, body, "v")
    before = await metric(router, CONTINUED)
    async with raw_client(router.url) as client:
        url = await begun(client, path, body, version)
        await fleet.kill(url)
        answer = await client.answer()
    assert answer.complete
    check(path, answer.body, unbroken)
    assert await metric(router, CONTINUED) == before + 1
    await fleet.restart(url)


@pytest.mark.parametrize(
    ("model", "path", "how"),
    [
        *(("v", path, how) for path in KINDS for how in ("rst", "fin", "torn")),
        ("s", CHAT, "rst"),
        ("s", COMPLETIONS, "torn"),
        ("l", CHAT, "fin"),
        ("l", COMPLETIONS, "rst"),
    ],
)
async def test_streams_that_break_are_one_stream_for_their_clients(router, fleet, model, path, how):
    body = body_of(path, model, f"And {how}?")
    unbroken = await fleet.unbroken(path, body, model)
    urls = fleet.urls[model]
    before = await metric(router, CONTINUED)
    async with fleet.cutting(urls[:-1], after_tokens=7, how=how), raw_client(router.url) as client:
        for _ in urls:  # each replica in its turn begins
            client.write(request("POST", path, body))
            answer = await client.answer()
            assert answer.complete
            check(path, answer.body, unbroken)
    assert await metric(router, CONTINUED) >= before + len(urls) - 1


async def test_a_stream_that_breaks_at_every_replica_goes_round(router, fleet):
    body = body_of(CHAT, "v", "Round?")
    unbroken = await fleet.unbroken(CHAT, body, "v")
    urls = fleet.urls["v"]
    async with fleet.cutting(urls, after_tokens=25, how="rst"), raw_client(router.url) as client:
        client.write(request("POST", CHAT, body))
        answer = await client.answer()
    assert answer.complete
    check(CHAT, answer.body, unbroken)


async def test_the_openai_client_notices_nothing(router, fleet):
    async with (
        openai.AsyncOpenAI(
            base_url=router.url + "/v1", api_key="sk-test", max_retries=0, timeout=20
        ) as client,
        fleet.cutting(fleet.urls["v"][:-1], after_tokens=9, how="rst"),
    ):
        for _ in fleet.urls["v"]:
            stream = await client.chat.completions.create(
                model="v", messages=[user("Hm?")], max_tokens=TOKENS, stream=True
            )
            said, ids, finish = "", set(), None
            async for chunk in stream:
                ids.add(chunk.id)
                for choice in chunk.choices:
                    said += choice.delta.content or ""
                    finish = choice.finish_reason or finish
            whole = await client.chat.completions.create(
                model="v", messages=[user("Hm?")], max_tokens=TOKENS
            )
            assert said == whole.choices[0].message.content
            assert finish == whole.choices[0].finish_reason
            assert len(ids) == 1


async def test_thirty_streams_outlive_a_replica(router, fleet):
    asks = [f"Number {number}?" for number in range(30)]
    bodies = [body_of(CHAT, "v", ask) for ask in asks]
    unbroken = await asyncio.gather(*(fleet.unbroken(CHAT, body, "v") for body in bodies))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(router.url)) for _ in bodies]
        urls = await asyncio.gather(
            *(begun(client, CHAT, body) for client, body in zip(clients, bodies, strict=True))
        )
        await fleet.kill(urls[0])
        answers = await asyncio.gather(*(client.answer() for client in clients))
    for answer, whole in zip(answers, unbroken, strict=True):
        assert answer.complete
        check(CHAT, answer.body, whole)
    await fleet.restart(urls[0])


async def test_a_client_that_leaves_after_a_break_leaves_nothing(router, fleet):
    body = body_of(CHAT, "v", "Gone?")
    async with fleet.cutting(fleet.urls["v"], after_tokens=4, how="rst"):
        async with raw_client(router.url) as client:
            await begun(client, CHAT, body)
            client.reset()
        await router.drained()


async def test_choices_are_not_continued_and_that_is_counted(router, fleet):
    body = body_of(CHAT, "v", "Two?", n=2)
    line = 'pointsman_not_continued_total{reason="choices"}'
    before = await metric(router, line)
    async with (
        fleet.cutting(fleet.urls["v"], after_tokens=7, how="rst"),
        raw_client(router.url) as client,
    ):
        client.write(request("POST", CHAT, body))
        answer = await client.answer()
    assert not answer.complete
    assert answer.body.rpartition(b"data: ")[2].startswith(b'{"error":')
    assert await metric(router, line) == before + 1


async def test_switched_off_a_broken_stream_ends_with_an_error(fleet, tmp_path):
    process = ServeProcess(config_of(fleet, continuation={"enabled": False}), tmp_path)
    await process.start()
    await all_ready(process)
    body = body_of(CHAT, "v", "Off?")
    async with (
        fleet.cutting(fleet.urls["v"], after_tokens=7, how="rst"),
        raw_client(process.url) as client,
    ):
        client.write(request("POST", CHAT, body))
        answer = await client.answer()
    assert not answer.complete
    assert answer.body.rpartition(b"data: ")[2].startswith(b'{"error":')
    assert b'prompt_token_ids":[' not in answer.body
    await process.drained()
    await process.stop()
