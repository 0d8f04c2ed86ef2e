"""The Python client libraries that people use, with nothing changed but the base URL."""

from __future__ import annotations

import asyncio
import io

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from tests.e2e.marks import e2e
from tests.fakes.api_replica import TEXT, WORDS, answer

pytestmark = e2e("clients-python")

REPLICAS = [["m"], ["other"]]
MESSAGES = [{"role": "user", "content": "Where to? 🚂"}]


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(replicas):
    for replica in replicas:
        replica.respond = answer
    return replicas


@pytest_asyncio.fixture(loop_scope="module")
async def client(router, fleet):
    async with openai.AsyncOpenAI(
        base_url=router.url + "/v1", api_key="sk-test", max_retries=0, timeout=20
    ) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def claude(router, fleet):
    async with anthropic.AsyncAnthropic(
        base_url=router.url, api_key="sk-test", max_retries=0, timeout=20
    ) as made:
        yield made


async def test_openai_chat(client, fleet):
    made = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert made.choices[0].message.content == TEXT
    assert made.usage.total_tokens == 12
    assert fleet[0].requests[0].value(b"authorization") == b"Bearer sk-test"


async def test_openai_chat_streamed(client):
    stream = await client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    words, usage = [], None
    async for chunk in stream:
        words += [choice.delta.content for choice in chunk.choices]
        usage = chunk.usage or usage
    assert words == WORDS
    assert usage.completion_tokens == 7


async def test_openai_stream_left_early(client, router):
    stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await client.close()
    await router.drained()


async def test_openai_completions(client):
    made = await client.completions.create(model="m", prompt="Where to?", max_tokens=7)
    assert made.choices[0].text == TEXT
    streamed = await client.completions.create(model="m", prompt=[1, 2, 3], stream=True)
    assert [chunk.choices[0].text async for chunk in streamed] == WORDS


async def test_openai_embeddings(client):
    made = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert made.data[0].embedding == [0.25, -1.5]


async def test_openai_responses(client):
    made = await client.responses.create(model="m", input="Where to?")
    assert made.output_text == TEXT


async def test_openai_transcription(client, fleet):
    sound = io.BytesIO(bytes(range(256)) * 200)
    sound.name = "speech.wav"
    made = await client.audio.transcriptions.create(model="other", file=sound)
    assert made.text.endswith(" bytes")
    assert sound.getvalue() in fleet[1].requests[0].content


async def test_openai_models(client):
    assert {model.id async for model in client.models.list()} == {"m", "other"}


async def test_openai_raw_headers(client, fleet):
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert raw.headers["x-pointsman-replica"] == fleet[0].address
    assert raw.headers["x-request-id"]


async def test_openai_errors(client):
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="unknown", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model="m", messages=MESSAGES, user="limited")
    assert limited.value.response.headers["retry-after"] == "0"
    assert limited.value.body["message"] == "slow down"
    with pytest.raises(openai.NotFoundError):
        await client.post("/../sleep", cast_to=object)


async def test_openai_retries_what_a_replica_told_it_to_retry(router, fleet):
    async with openai.AsyncOpenAI(
        base_url=router.url + "/v1", api_key="sk-test", max_retries=2
    ) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="m", messages=MESSAGES, user="limited")
    assert len(fleet[0].requests) == 3


async def test_openai_without_asyncio(router, fleet):
    def ask():
        with openai.OpenAI(base_url=router.url + "/v1", api_key="sk-test") as client:
            stream = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            return [chunk.choices[0].delta.content for chunk in stream]

    assert await asyncio.to_thread(ask) == WORDS


async def test_openai_many_at_once(client):
    async def one():
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        return [chunk.choices[0].delta.content async for chunk in stream]

    assert await asyncio.gather(*(one() for _ in range(30))) == [WORDS] * 30


async def test_anthropic_messages(claude, fleet):
    made = await claude.messages.create(model="m", max_tokens=9, messages=MESSAGES)
    assert made.content[0].text == TEXT
    received = fleet[0].requests[0]
    assert received.target.partition(b"?")[0] == b"/v1/messages"
    assert b"sk-test" in received.head  # in X-Api-Key or Authorization, by the library's version
    assert received.value(b"anthropic-version")


async def test_anthropic_messages_streamed(claude):
    stream = await claude.messages.create(model="m", max_tokens=9, messages=MESSAGES, stream=True)
    kinds, words = [], []
    async for event in stream:
        kinds.append(event.type)
        if event.type == "content_block_delta":
            words.append(event.delta.text)
    assert words == WORDS
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


async def test_anthropic_errors(claude):
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await claude.messages.create(model="unknown", max_tokens=9, messages=MESSAGES)
    assert unknown.value.body["type"] == "error"
    assert unknown.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.RateLimitError):
        await claude.messages.create(
            model="m", max_tokens=9, messages=MESSAGES, metadata={"user_id": "limited"}
        )


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "offering HTTP/2"])
async def test_httpx(router, fleet, http2):
    async def pieces():
        for piece in ('{"model": "m", ', '"stream": false, ', '"messages": []}'):
            yield piece.encode()

    async with httpx.AsyncClient(base_url=router.url, http2=http2) as client:
        made = await client.post("/v1/chat/completions", content=pieces())
        assert made.status_code == 200
        assert made.json()["choices"][0]["message"]["content"] == TEXT
        async with client.stream(
            "POST", "/v1/chat/completions", json={"model": "m", "stream": True}
        ) as response:
            data = [line async for line in response.aiter_lines() if line.startswith("data:")]
        assert len(data) == len(WORDS) + 1
        files = {"file": ("a.bin", bytes(range(256))), "model": (None, "other")}
        assert (await client.post("/v1/audio/transcriptions", files=files)).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.head("/health")).status_code == 200
