"""Streams: every byte, at once, at the client's own pace."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import chunked, http

pytestmark = e2e("streams")

EVENT_STREAM = "Content-Type: text/event-stream; charset=utf-8"
STREAM_BODY = b'{"model": "m", "stream": true, "messages": []}'
STREAM_HEAD = http("200 OK", b"", EVENT_STREAM, "Transfer-Encoding: chunked", length=False)


def event(text):
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"

STREAMS = {
    "plain": [event("a"), event("b"), DONE],
    "no DONE": [event("a"), event("b")],
    "no space": [b'data:{"a":1}\n\n', b"data:[DONE]\n\n"],
    "comments": [b": ping\n\n", event("a"), b":\n\n", DONE],
    "CRLF": [b'data: {"a": 1}\r\n\r\n', b": ping\r\n\r\n", b"data: [DONE]\r\n\r\n"],
    "CR": [b'data: {"a": 1}\r\r', b"data: [DONE]\r\r"],
    "300 kB event": [event("x" * 300_000), event("y"), DONE],
    "after DONE": [event("a"), DONE, b": bye\n\n", b'data: {"late": 1}\n\n'],
    "several in one": [event("a") + event("b") + event("c"), DONE],
    "split events": [event("abc")[:9], event("abc")[9:20], event("abc")[20:], DONE],
    "split UTF-8": ['data: {"a": "🚂'.encode()[:-2], "🚂".encode()[2:] + b'"}\n\n', DONE],
    "many data lines": [b"event: x\nid: 7\nretry: 1\ndata: a\ndata: b\n\n"],
    "no blank line at the end": [event("a"), b"data: unfinished"],
    "BOM": [b"\xef\xbb\xbf" + event("a"), DONE],
    "line separators": ['data: {"a": "x\u2028y\u0085z"}\n\n'.encode(), DONE],
    "mid-stream error": [event("a"), b'data: {"error": {"message": "boom", "code": 500}}\n\n'],
    "Anthropic": [b'event: message_start\ndata: {"type": "message_start"}\n\n', b"event: x\n\n"],
    "empty": [],
    "tiny chunks": [bytes([byte]) for byte in event("tiny") + DONE],
}
FRAMINGS = ["chunked", "length", "close"]


def script(framing, pieces):
    async def respond(exchange):
        await exchange.read_body()
        if framing == "chunked":
            exchange.send(STREAM_HEAD)
            for piece in pieces:
                exchange.send(chunked(piece, end=b""))
                await asyncio.sleep(0)
            exchange.send(b"0\r\n\r\n")
            return
        length = [f"Content-Length: {sum(map(len, pieces))}"] if framing == "length" else []
        exchange.send(http("200 OK", b"", EVENT_STREAM, *length, length=False))
        for piece in pieces:
            exchange.send(piece)
            await asyncio.sleep(0)
        if framing == "close":
            exchange.close()

    return respond


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS)
async def test_a_stream_arrives_byte_by_byte(router, replica, pieces, framing):
    replica.respond = script(framing, pieces)
    async with raw_client(router.url) as client:
        for _ in range(2):
            client.write(request("POST", "/v1/chat/completions", STREAM_BODY))
            answer = await client.answer()
            assert answer.body == b"".join(pieces)
            assert answer.complete
            assert answer.value("content-type") == EVENT_STREAM.partition(": ")[2].encode()


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_each_event_is_delivered_before_the_next_exists(router, replica, framing, version):
    seen = asyncio.Queue()
    events = [event(f"word {number}") for number in range(20)]

    async def respond(exchange):
        await exchange.read_body()
        head = (
            STREAM_HEAD if framing == "chunked" else http("200 OK", b"", EVENT_STREAM, length=False)
        )
        exchange.send(head)
        for piece in events:
            exchange.send(chunked(piece, end=b"") if framing == "chunked" else piece)
            await seen.get()  # the next is sent only when the client has read this one
        if framing == "chunked":
            exchange.send(b"0\r\n\r\n")
        else:
            exchange.close()

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/chat/completions", STREAM_BODY, version=version))
        for piece in events:
            await client.until(piece)
            seen.put_nowait(None)
        await client.rest() if version == "HTTP/1.0" else await client.until(b"0\r\n\r\n")


async def test_the_head_is_delivered_before_the_first_event_exists(router, replica):
    seen = asyncio.Event()

    async def respond(exchange):
        await exchange.read_body()
        exchange.send(STREAM_HEAD)
        await seen.wait()
        exchange.send(chunked(DONE))

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/chat/completions", STREAM_BODY))
        assert (await client.head())[0] == 200
        seen.set()
        assert await client.until(b"0\r\n\r\n") is not None


async def test_streams_run_side_by_side(router, replica):
    together = asyncio.Barrier(20)

    async def respond(exchange):
        await exchange.read_body()
        exchange.send(STREAM_HEAD + chunked(event("first"), end=b""))
        await together.wait()  # none goes on before all have begun
        exchange.send(chunked(exchange.request.value(b"x-name"), DONE))

    async def one(number):
        async with raw_client(router.url) as client:
            client.write(request("POST", "/v1/chat/completions", STREAM_BODY, f"X-Name: {number}"))
            return (await client.answer()).body

    replica.respond = respond
    bodies = await asyncio.gather(*(one(number) for number in range(20)))
    assert bodies == [event("first") + b"%d" % number + DONE for number in range(20)]


async def test_a_client_that_stops_reading_stops_its_replica_and_loses_nothing(router, replica):
    """The replica has 64 MB to send; only what fits sockets and bounded buffers may leave it."""
    piece = bytes(range(256)) * 256
    count = 1024
    sent = hashlib.sha256()
    written = 0
    stalled = asyncio.Event()

    async def respond(exchange):
        nonlocal written
        await exchange.read_body()
        exchange.send(http("200 OK", b"", f"Content-Length: {len(piece) * count}", length=False))
        transport = exchange.connection.transport
        for _ in range(count):
            quiet = 0
            while transport.get_write_buffer_size() > len(piece):
                quiet += 1
                if quiet == 100:
                    stalled.set()
                await asyncio.sleep(0.002)
            exchange.send(piece)
            sent.update(piece)
            written += len(piece)

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.transport.pause_reading()
        client.write(request("POST", "/v1/chat/completions", STREAM_BODY))
        async with asyncio.timeout(DEADLINE_S):
            await stalled.wait()
        assert written < 24 * 1024 * 1024  # two pairs of kernel buffers, at most 6 + 4 MB each
        client.transport.resume_reading()
        answer = await client.answer()
    assert answer.complete
    assert hashlib.sha256(answer.body).digest() == sent.digest()
    assert written == len(piece) * count


async def test_a_slow_client_does_not_hold_up_the_others(router, replica):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"z" * 30_000_000))

    async with raw_client(router.url) as slow:
        replica.respond = respond
        slow.transport.pause_reading()
        slow.write(request())
        await replica.arrived()
        replica.respond = script("chunked", [event("a"), DONE])
        for _ in range(3):
            async with raw_client(router.url) as client:
                client.write(request("POST", "/v1/chat/completions", STREAM_BODY))
                assert (await client.answer()).body == event("a") + DONE
