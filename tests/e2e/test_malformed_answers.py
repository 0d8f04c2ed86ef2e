"""Replicas are held to the same rules: a malformed answer is a 502, or an answer that breaks off.

An answer that its replica did not finish never looks finished to the client.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_connection import DEADLINE_S
from tests.fakes.raw_replica import OK, answering, chunked, http

pytestmark = e2e("answers-malformed")

BODY = b'{"ok": true}'
CHUNKED = "Transfer-Encoding: chunked"
EVENT_STREAM = "Content-Type: text/event-stream"


def head(*fields, line="HTTP/1.1 200 OK", body=BODY):
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


def sized(*fields, **more):
    return head(f"Content-Length: {len(BODY)}", *fields, **more)


HEADS = {
    "CL and TE": sized(CHUNKED, body=chunked(BODY)),
    "CL twice, differing": sized("Content-Length: 5"),
    "CL list, differing": head("Content-Length: 12, 5"),
    "CL plus": head("Content-Length: +12"),
    "CL minus": head("Content-Length: -1"),
    "CL hex": head("Content-Length: 0xc"),
    "CL empty": head("Content-Length:"),
    "CL empty after a space": head("Content-Length: "),
    "CL overlong": head("Content-Length: 99999999999999999999"),
    "TE gzip": head("Transfer-Encoding: gzip"),
    "TE gzip, chunked": head("Transfer-Encoding: gzip, chunked", body=chunked(BODY)),
    "TE chunked, gzip": head("Transfer-Encoding: chunked, gzip", body=chunked(BODY)),
    "TE chunked twice": head(CHUNKED, CHUNKED, body=chunked(BODY)),
    "TE in HTTP/1.0": head(CHUNKED, line="HTTP/1.0 200 OK", body=chunked(BODY)),
    "space before the colon": sized("X-A : 1"),
    "obs-fold": sized("X-A: 1\r\n 2"),
    "bare CR": sized("X-A: 1\r2"),
    "bare LF": sized("X-A: 1\nX-B: 2"),
    "only LF": sized().replace(b"\r\n", b"\n"),
    "NUL": sized("X-A: \x00"),
    "control byte": sized("X-A: \x07"),
    "no colon": sized("X-A"),
    "no name": sized(": 1"),
    "status of two digits": sized(line="HTTP/1.1 99 Low"),
    "status of four digits": sized(line="HTTP/1.1 2000 OK"),
    "status no number": sized(line="HTTP/1.1 OK"),
    "status with sign": sized(line="HTTP/1.1 +20 OK"),
    "control byte in the reason": sized(line="HTTP/1.1 200 O\x01K"),
    "HTTP/2.0": sized(line="HTTP/2.0 200 OK"),
    "HTTP/1.2": sized(line="HTTP/1.2 200 OK"),
    "no version": sized(line="200 OK"),
    "lower case": sized(line="http/1.1 200 OK"),
    "101": head("Upgrade: websocket", "Connection: Upgrade", line="HTTP/1.1 101 Switching"),
    "1xx without end": http("100 Continue", length=False) * 1000 + OK,
    "a head of 70 kB": sized("X-A: " + "a" * 70_000),
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 20_000,
    "1000 fields": sized(*(f"X-{i}: 1" for i in range(1000))),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
    "HTTP/0.9": b"just a body\r\n\r\n",
    "a request": request("GET", "/", None),
}


@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS)
async def test_a_malformed_head_is_a_502(router, replica, data):
    for first in (True, False):  # over a new connection, and over one that was used before
        await replica.fresh()
        failed = (await router.fleet())["replicas"][0]["failed_total"]
        async with raw_client(router.url) as client:
            if not first:
                client.write(request())
                assert (await client.answer()).status == 200
            replica.respond = answering(data)
            client.write(request())
            answer = await client.answer()
            assert (answer.status, answer.complete) == (502, True)
            assert set(answer.json["error"]) == {"message", "type", "param", "code"}
            assert replica.address not in answer.body.decode()
            replica.respond = answering(OK)
            client.write(request())
            assert (await client.answer()).body == BODY
        assert (await router.fleet())["replicas"][0]["failed_total"] == failed + 1


def ending(data, how):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(data)
        if how == "resets":
            await asyncio.wait_for(relayed.wait(), DEADLINE_S)
            exchange.reset()
        else:
            exchange.close()

    relayed = asyncio.Event()
    return respond, relayed


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", sized()[:30]])
async def test_an_end_inside_the_head_is_a_502(router, replica, data, how):
    respond, relayed = ending(data, how)
    replica.respond = respond
    relayed.set()
    async with raw_client(router.url) as client:
        client.write(request())
        assert (await client.answer()).status == 502
        replica.respond = answering(OK)
        client.write(request())
        assert (await client.answer()).body == BODY


BROKEN = {
    "sized": head("Content-Length: 100"),
    "sized, nothing came": head("Content-Length: 100", body=b""),
    "inside a chunk": head(CHUNKED, body=b"40\r\nabc"),
    "between chunks": head(CHUNKED, body=chunked(b"abc", end=b"")),
    "inside a chunk size": head(CHUNKED, body=chunked(b"abc", end=b"4")),
    "before the last CRLF": head(CHUNKED, body=chunked(b"abc", end=b"0\r\n")),
    "before any chunk": head(CHUNKED, body=b""),
    "events, between": head(CHUNKED, EVENT_STREAM, body=chunked(b"data: a\n\n", end=b"")),
    "events, inside": head(CHUNKED, EVENT_STREAM, body=b"40\r\ndata: a\n\ndat"),
    "events, sized": head("Content-Length: 100", EVENT_STREAM, body=b"data: a\n\n"),
}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_an_unfinished_answer_never_looks_finished(router, replica, data, how, version):
    respond, relayed = ending(data, how)
    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request(version=version))
        begun = await client.until(b"\r\n\r\n")
        assert begun.startswith(b"HTTP/1.1 200")
        relayed.set()
        rest = await client.rest()
        assert b"[DONE]" not in rest
        lowered = begun.lower()
        told = b"data: {" in rest and b'"error"' in rest
        if b"transfer-encoding: chunked" in lowered:
            assert not rest.endswith(b"0\r\n\r\n")
        elif b"content-length" in lowered:
            assert len(rest) < 100
        else:  # its end is the only sign of its end: it must be no good one, or say so
            assert client.error is not None or told


@pytest.mark.parametrize(
    "bad",
    [
        b"xyz\r\n",
        b"5\nabcde\r\n",
        b"1\r\nabc\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"1;\n\r\na\r\n",
        b"-1\r\n",
    ],
)
@pytest.mark.parametrize("kind", ["Content-Type: application/json", EVENT_STREAM])
async def test_bad_chunks_break_the_answer_off(router, replica, bad, kind):
    replica.respond = answering(head(CHUNKED, kind, body=chunked(b"data: a\n\n", end=b"")) + bad)
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert (answer.status, answer.complete) == (200, False)
        assert b"abc" not in answer.body
    replica.respond = answering(OK)
    async with raw_client(router.url) as client:
        client.write(request())
        assert (await client.answer()).body == BODY


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_broken_stream_ends_with_an_error_event(router, replica, path):
    respond, relayed = ending(BROKEN["events, between"], "resets")
    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request("POST", path))
        begun = await client.until(b"data: a\n\n")
        relayed.set()
        rest = await client.rest()
    assert b"200 OK" in begun
    assert b"[DONE]" not in rest
    assert b'data: {"type":"error"' in rest if path == "/v1/messages" else b'"error"' in rest
    assert not rest.endswith(b"0\r\n\r\n")


SURPLUS = {
    "another response": OK.replace(b"true", b"evil"),
    "an event": b"data: evil\n\n",
    "CRLF": b"\r\n",
}
WHOLE = {
    "sized": sized(),
    "chunked": head(CHUNKED, body=chunked(BODY)),
    "empty": http("200 OK"),
    "204": http("204 No Content", length=False),
    "304": http("304 Not Modified", length=False),
}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
async def test_bytes_after_an_answer_are_nobodys(router, replica, whole, surplus, late):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(whole if late else whole + surplus)
        if late:
            await asyncio.wait_for(read.wait(), DEADLINE_S)
            exchange.send(surplus)
            await exchange.gone()  # the router drops a connection that answers what was not asked
            exchange.close()

    read = asyncio.Event()
    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request())
        answer = await client.answer()
        assert answer.complete
        assert b"evil" not in answer.body
        read.set()
        if late:
            await asyncio.wait_for(replica.connections[0].lost.wait(), DEADLINE_S)
        replica.respond = answering(OK)
        for _ in range(2):
            client.write(request())
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, BODY)
    assert len(replica.connections) == 2


async def test_a_body_after_an_answer_to_head_is_nobodys(router, replica):
    replica.respond = answering(sized())
    async with raw_client(router.url) as client:
        client.write(request("HEAD", "/v1/files/f", None))
        assert (await client.answer("HEAD")).status == 200
        replica.respond = answering(http("200 OK", b"mine"))
        client.write(request("GET", "/v1/files/f", None))
        assert (await client.answer()).body == b"mine"
