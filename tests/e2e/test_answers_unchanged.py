"""What a replica answers arrives at the client as it was given."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import answering, chunked, http

pytestmark = e2e("answers")

BINARY = bytes(range(256)) * 64
JSON_TYPE = "Content-Type: application/json"


async def send(router, data, method="POST"):
    async with raw_client(router.url) as client:
        client.write(data)
        return await client.answer(method)


HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length"}
ADDED = {b"x-pointsman-replica", b"x-request-id"}

ANSWERS = {
    "204": http("204 No Content", b"", "X-A: 1", length=False),
    "304": http("304 Not Modified", b"", 'ETag: "x"', "Cache-Control: no-cache", length=False),
    "304 with length": http("304 Not Modified", b"", "Content-Length: 10", length=False),
    "301": http("301 Moved Permanently", b"moved", "Location: http://127.0.0.1:9/elsewhere"),
    "307": http("307 Temporary Redirect", b"", "Location: /v1/other"),
    "400": http("400 Bad Request", b'{"error": {"message": "no"}}', JSON_TYPE),
    "401": http("401 Unauthorized", b"{}", 'WWW-Authenticate: Bearer realm="x"'),
    "413": http("413 Payload Too Large", b"{}"),
    "422": http("422 Unprocessable Entity", b'{"detail": [{"loc": ["body"]}]}', JSON_TYPE),
    "429": http(
        "429 Too Many Requests",
        b"{}",
        "Retry-After: 7",
        "x-ratelimit-limit-requests: 60",
        "x-ratelimit-remaining-tokens: 0",
        "x-ratelimit-reset-tokens: 6m0s",
    ),
    "500": http("500 Internal Server Error", b"boom"),
    "503": http("503 Service Unavailable", b"{}", "Retry-After: 3"),
    "odd status": http("299 Whatever You Say", b"ok"),
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    "empty": http("200 OK"),
    "repeated fields": http("200 OK", b"x", "Set-Cookie: a=1", "Set-Cookie: b=2", "X-Y: 1"),
    "field bytes": http("200 OK", b"x", "X-Latin: caf\xe9", "X-Empty:", 'X-Q: "a, b"'),
    "CORS": http(
        "200 OK", b"{}", "Access-Control-Allow-Origin: *", "Vary: Origin", "Vary: Accept-Encoding"
    ),
    "gzip": http("200 OK", gzip.compress(b"x" * 5000, mtime=0), "Content-Encoding: gzip"),
    "binary": http("200 OK", BINARY, "Content-Type: audio/wav"),
    "chunked": http("200 OK", b"", "Transfer-Encoding: chunked", length=False)
    + chunked(b"a", b"\r\n0\r\n\r\n", BINARY),
    "20 kB of headers": http("200 OK", b"x", *(f"X-H-{i}: {'v' * 300}" for i in range(64))),
}


def parsed(data):
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.split(b"\r\n")
    fields = [(name, value.strip()) for name, _, value in (field.partition(b":") for field in rest)]
    if (b"Transfer-Encoding", b"chunked") in fields:
        body = b"a\r\n0\r\n\r\n" + BINARY
    return line, fields, body


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("data", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_relayed_as_it_was_given(router, replica, data, method):
    replica.respond = answering(data)
    line, fields, body = parsed(data)
    async with raw_client(router.url) as client:
        for _ in range(2):  # the second time over connections in use
            client.write(request(method, "/v1/files/f", None if method == "GET" else b"{}"))
            answer = await client.answer()
            assert b"HTTP/1.1 %d %b" % (answer.status, answer.reason) == line
            relayed = [f for f in answer.fields if f[0].lower() not in HOP_BY_HOP | ADDED]
            assert relayed == [f for f in fields if f[0].lower() not in HOP_BY_HOP]
            assert answer.body == body
            assert answer.complete
            assert answer.value("x-pointsman-replica") == replica.address.encode()
    assert len(replica.requests) == 2  # a redirect is not followed


async def test_a_replicas_own_request_id_is_not_doubled(router, replica):
    replica.respond = answering(http("200 OK", b"{}", "X-Request-Id: theirs"))
    assert (await send(router, request())).value("x-request-id") == b"theirs"


async def test_a_body_that_ends_with_its_connection_arrives_whole(router, replica):
    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("200 OK", b"", length=False) + BINARY)
        exchange.close()

    replica.respond = respond
    async with raw_client(router.url) as client:
        for _ in range(2):
            client.write(request())
            answer = await client.answer()
            assert (answer.body, answer.complete) == (BINARY, True)


async def test_interim_answers_are_swallowed(router, replica):
    interim = [
        http("100 Continue", length=False),
        http("102 Processing", length=False),
        http("103 Early Hints", b"", "Link: </x>; rel=preload", length=False),
    ]
    replica.respond = answering(b"".join(interim) + http("200 OK", b"final"))
    async with raw_client(router.url) as client:
        for _ in range(2):
            client.write(request())
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"final")


async def test_an_interim_answer_long_before_the_final_one(router, replica):
    seen = asyncio.Event()

    async def respond(exchange):
        await exchange.read_body()
        exchange.send(http("103 Early Hints", length=False))
        await seen.wait()
        exchange.send(http("200 OK", b"final"))

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request())
        await replica.arrived()
        seen.set()
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"final")


@pytest.mark.parametrize("then", ["waits", "ends", "closes"])
async def test_an_answer_before_the_body_was_read_is_relayed(router, replica, then):
    async def respond(exchange):
        exchange.send(http("401 Unauthorized", b'{"error": "no"}', "WWW-Authenticate: Bearer"))
        if then == "ends":
            exchange.connection.end_sending()
        elif then == "closes":  # with bytes unread, so the kernel resets the connection
            exchange.close()

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(
            request("POST", "/v1/completions", b'{"model":"m","x":"' + b"y" * 4_000_000 + b'"}')
        )
        answer = await client.answer()
        assert (answer.status, answer.body) == (401, b'{"error": "no"}')
        assert answer.value("www-authenticate") == b"Bearer"
    assert len(replica.requests) == 1


async def test_head_gets_the_head_alone_and_the_connection_goes_on(router, replica):
    async def respond(exchange):
        body = b"" if exchange.request.method == b"HEAD" else b"0123456789"
        exchange.send(http("200 OK", b"", "Content-Length: 10", length=False) + body)

    replica.respond = respond
    async with raw_client(router.url) as client:
        client.write(request("HEAD", "/v1/files/f", None) + request("GET", "/v1/files/f", None))
        head = await client.answer("HEAD")
        assert (head.status, head.value("content-length")) == (200, b"10")
        assert (await client.answer()).body == b"0123456789"
    for path in ("/v1/models", "/health", "/ready"):
        async with raw_client(router.url) as client:
            client.write(request("HEAD", path, None) + request("GET", path, None))
            head, whole = await client.answer("HEAD"), await client.answer()
            assert head.value("content-length") == b"%d" % len(whole.body)


async def test_a_cors_preflight_is_forwarded(router, replica):
    replica.respond = answering(
        http("200 OK", b"OK", "Access-Control-Allow-Methods: POST", "Access-Control-Max-Age: 600")
    )
    fields = ["Origin: https://chat.example", "Access-Control-Request-Method: POST"]
    answer = await send(router, request("OPTIONS", "/v1/chat/completions", None, *fields))
    assert answer.value("access-control-allow-methods") == b"POST"
    assert replica.requests[0].value(b"origin") == b"https://chat.example"
