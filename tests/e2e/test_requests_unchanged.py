"""What is legal arrives at the replica as the client sent it."""

from __future__ import annotations

import gzip

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import chunked

pytestmark = e2e("requests")

BINARY = bytes(range(256)) * 64
JSON_TYPE = "Content-Type: application/json"

TARGETS = [
    "/v1/chat/completions?",
    "/v1/chat/completions?a=b&c=%20d&a=e",
    "/v1/chat/completions?api-version=2024%2F01;x=1",
    "/v1/chat/completions?broken=%zz&empty=&=&",
    "/v1/chat/completions?q=/../sleep",
    "/v1/chat/completions?url=http://elsewhere/?x",
    "/v1/chat/completions/",
    "/v1//chat/completions",
    "/v1/chat//completions",
    "/v1/files/a%2Fb",
    "/v1/files/a%2fb",
    "/v1/files//double//",
    "/v1/files/%E2%9C%93",
    "/v1/files/~x'(!)*,@:$&+=",
    "/v1/files/a%20b;v=1",
    "/v1/models/%6D",
    "/v1/realtime/" + "x" * 8000,
]


async def send(router, data, method="POST"):
    async with raw_client(router.url) as client:
        client.write(data)
        return await client.answer(method)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:60])
async def test_a_target_is_forwarded_as_it_was_spelled(router, replica, target):
    answer = await send(router, request("POST", target))
    assert answer.status == 200
    assert replica.requests[0].target == target.encode()


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "M-SEARCH"]
)
async def test_every_method_is_forwarded(router, replica, method):
    answer = await send(router, request(method, "/v1/files/f-1", None), method)
    assert answer.status == 200
    assert replica.requests[0].method == method.encode()


BODIES = {
    "spacing": b'{ "model" :\t"m",\r\n "messages":[ ] }',
    "nulls": b'{"model":"m","stream":null,"max_tokens":null,"n":null,"user":null,"messages":[]}',
    "huge number": b'{"model":"m","seed":123456789012345678901234567890,"top_p":1e400}',
    "float as int": b'{"model":"m","max_tokens":64.0,"n":1.0,"priority":-0.0}',
    "number's digits": b'{"model":"m","temperature":0.10000000000000000000001}',
    "lone surrogate": b'{"model":"m","prompt":"\\ud83d","messages":[]}',
    "escaped keys": b'{"mod\\u0065l":"m","\\u0073tream":false}',
    "escaped slash": b'{"model":"m","prompt":"a\\/b\\u00e9"}',
    "duplicate keys": b'{"prompt":"a","prompt":"b","model":"m"}',
    "NaN": b'{"model":"m","temperature":NaN}',
    "deep": b'{"model":"m","x":' + b"[" * 400 + b"]" * 400 + b"}",
    "unknown fields": b'{"model":"m","nvext":{"a":[1,2,{"b":null}]},"":0}',
    "utf-8": '{"model":"m","prompt":"Zürich 東京 🚂"}'.encode(),
    "byte-order mark": b'\xef\xbb\xbf{"model":"m"}',
    "no JSON at all": b"\x00\xff not json",
    "a list": b'["model"]',
    "empty": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_is_forwarded_byte_by_byte(router, replica, body):
    answer = await send(router, request("POST", "/v1/chat/completions", body, JSON_TYPE))
    assert answer.status == 200
    assert replica.requests[0].content == body


def multipart(*parts):
    boundary = b"----x'y(z)1"
    made = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, data) for head, data in parts)
    kind = 'Content-Type: multipart/form-data; boundary="----x\'y(z)1"'
    return kind, made + b"--%b--\r\n" % boundary


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_multipart_is_forwarded_byte_by_byte(router, replica, path):
    kind, body = multipart(
        (b'Content-Disposition: form-data; name="file"; filename="a.wav"', BINARY + b"\r\n--x\r\n"),
        (b'Content-Disposition: form-data; name="model"', b"m"),
    )
    assert (await send(router, request("POST", path, body, kind))).status == 200
    assert replica.requests[0].content == body
    assert replica.requests[0].value(b"content-type") == kind.partition(": ")[2].encode()


async def test_a_compressed_body_is_not_touched(router, replica):
    body = gzip.compress(b'{"model": "m"}')
    answer = await send(
        router, request("POST", "/v1/chat/completions", body, "Content-Encoding: gzip")
    )
    assert answer.status == 200
    assert replica.requests[0].content == body
    assert replica.requests[0].value(b"content-encoding") == b"gzip"


async def test_a_chunked_body_arrives_whole_and_its_trailers_do_not(router, replica):
    pieces = [b'{"model":', b' "m", "x": "', b"y" * 70_000, b'"}']
    trailer = b"0\r\nX-Trailer: evil\r\nAuthorization: Bearer evil\r\nHost: evil\r\n\r\n"
    head = request(
        "POST", "/v1/chat/completions", None, "Transfer-Encoding: chunked", "Trailer: X-Trailer"
    )
    assert (await send(router, head + chunked(*pieces, end=trailer))).status == 200
    received = replica.requests[0]
    assert received.content == b"".join(pieces)
    assert b"evil" not in received.head
    assert b"evil" not in received.body


async def test_chunk_extensions_and_odd_chunk_sizes_are_read(router, replica):
    body = b'3;a=b;c="d e"\r\n{"m\r\n000B\r\nodel": "m"}\r\n0;last\r\n\r\n'
    head = request("POST", "/v1/chat/completions", None, "Transfer-Encoding: Chunked")
    assert (await send(router, head + body)).status == 200
    assert replica.requests[0].content == b'{"model": "m"}'


async def test_20_kb_of_headers_arrive_in_order(router, replica):
    fields = [f"X-Field-{i}: {'v' * 300}{i}" for i in range(60)]
    fields.append("Cookie: " + "c" * 4000)
    await send(router, request("POST", "/v1/completions", b'{"model":"m"}', *fields))
    wanted = [tuple(field.encode().split(b": ", 1)) for field in fields]
    received = [pair for pair in replica.requests[0].fields if pair in wanted]
    assert received == wanted


async def test_one_header_of_20_kb_arrives(router, replica):
    await send(router, request("POST", "/v1/completions", b"{}", "Cookie: " + "c" * 20_000))
    assert replica.requests[0].value(b"cookie") == b"c" * 20_000


async def test_header_fields_keep_spelling_order_repetition_and_bytes(router, replica):
    fields = [
        "accept: text/event-stream, application/json;q=0.5",
        "X-TAG: a",
        "x-tag: b",
        "X-Empty:",
        "X-Latin: caf\xe9 \xff",
        "X-Tab: a\tb",
        'X-Quoted: "a, b"; c=\\d',
        "Authorization: Bearer sk-1",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=b",
        "X-Underscore_Name: 1",
    ]
    await send(router, request("POST", "/v1/completions", b'{"model":"m"}', *fields))
    wanted = []
    for field in fields:
        name, _, value = field.encode("latin-1").partition(b":")
        wanted.append((name, value.strip()))
    names = {name for name, _ in wanted}
    assert [pair for pair in replica.requests[0].fields if pair[0] in names] == wanted
    assert replica.requests[0].value(b"host") == b"pointsman.test"


async def test_hop_by_hop_fields_stay_behind(router, replica):
    fields = [
        "Connection: keep-alive, X-Mine, Content-Length, Host",
        "X-Mine: secret",
        "X-Kept: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "TE: trailers",
    ]
    await send(router, request("POST", "/v1/completions", b'{"model":"m"}', *fields))
    received = replica.requests[0]
    assert received.content == b'{"model":"m"}'
    assert received.value(b"host") == b"pointsman.test"
    assert received.value(b"x-kept") == b"1"
    names = (
        b"connection x-mine keep-alive proxy-connection proxy-authorization te transfer-encoding"
    )
    for name in names.split():
        assert received.values(name) == [], name


async def test_what_a_proxy_adds(router, replica):
    await send(router, request())
    received = replica.requests[0]
    assert received.value(b"x-forwarded-for") == b"127.0.0.1"
    assert received.value(b"x-forwarded-proto") == b"http"
    assert len(received.value(b"x-request-id")) >= 16


async def test_what_earlier_proxies_said_is_kept(router, replica):
    fields = ["X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https", "X-Request-Id: abc-1"]
    answer = await send(router, request("POST", "/v1/completions", b"{}", *fields))
    received = replica.requests[0]
    assert received.value(b"x-forwarded-for") == b"10.1.1.1, 127.0.0.1"
    assert received.value(b"x-forwarded-proto") == b"https"
    assert received.value(b"x-request-id") == b"abc-1"
    assert answer.value("x-request-id") == b"abc-1"


async def test_absolute_form_is_forwarded_in_origin_form(router, replica):
    target = "http://pointsman.test/v1/completions?x=%20"
    assert (await send(router, request("POST", target))).status == 200
    assert replica.requests[0].target == b"/v1/completions?x=%20"
    assert replica.requests[0].value(b"host") == b"pointsman.test"


async def test_an_offer_of_h2c_is_ignored_and_the_body_stays_framed(router, replica):
    fields = [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ]
    body = b'{"model": "m"}'
    async with raw_client(router.url) as client:
        client.write(request("POST", "/v1/completions", body, *fields) + request())
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 200
    first = replica.requests[0]
    assert first.content == body
    for name in (b"upgrade", b"http2-settings", b"connection"):
        assert first.values(name) == []
