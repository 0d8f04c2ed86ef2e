"""Each malformed or ambiguous request is refused over a real socket, however it is cut up.

Refused means: the named status, a JSON error in OpenAI's shape, the connection closed, nothing
forwarded, and the next connection served as if nothing had been.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.e2e.marks import e2e
from tests.fakes.raw_client import raw_client, request
from tests.fakes.raw_replica import chunked

pytestmark = e2e("malformed")

CONFIG = {"limits": {"max_body_bytes": 1_000_000}}
BODY = b'{"model": "m"}'
CHUNKED = "Transfer-Encoding: chunked"


def post(*fields, body=BODY, length=True, **more):
    return request("POST", "/v1/chat/completions", body, *fields, length=length, **more)


def chunks(body, *fields):
    return post(CHUNKED, *fields, body=body, length=False)


def lengths(*values):
    return post(*(f"Content-Length: {value}" for value in values), length=False)


def coding(*values):
    fields = (f"Transfer-Encoding: {value}" for value in values)
    return post(*fields, body=chunked(BODY), length=False)


LENGTHS = {
    "CL and TE": post(CHUNKED),
    "TE and CL": post(CHUNKED, "Content-Length: 5", body=chunked(BODY), length=False),
    "CL and TE in another case": post("TRANSFER-ENCODING: Chunked"),
    "CL twice, differing": lengths(14, 15),
    "CL list, differing": lengths("14, 15"),
    "CL plus": lengths("+14"),
    "CL minus": lengths("-14"),
    "CL minus nothing": lengths("-0"),
    "CL hex": lengths("0xe"),
    "CL hex digits": lengths("e"),
    "CL underscore": lengths("1_4"),
    "CL decimal": lengths("14.0"),
    "CL exponent": lengths("1e1"),
    "CL two words": lengths("14 14"),
    "CL empty": lengths(""),
    "CL comma": lengths("14,"),
    "CL overlong": lengths("99999999999999999999"),
    "CL overlong zeros": lengths("0" * 40 + "14"),
    "CL 2^64": lengths(2**64 + 14),
    "CL other digits": lengths("\xb2"),
    "CL vertical tab": lengths("\x0b14"),
}
CODINGS = {
    "TE gzip": coding("gzip"),
    "TE identity": coding("identity"),
    "TE gzip, chunked": coding("gzip, chunked"),
    "TE chunked, gzip": coding("chunked, gzip"),
    "TE chunked, chunked": coding("chunked, chunked"),
    "TE chunked, identity": coding("chunked, identity"),
    "TE chunked twice": coding("chunked", "chunked"),
    "TE twice": coding("gzip", "chunked"),
    "TE xchunked": coding("xchunked"),
    "TE quoted": coding('"chunked"'),
    "TE with parameter": coding("chunked;q=1"),
    "TE empty": coding(""),
    "TE comma": coding(",chunked"),
    "TE vertical tab": coding("\x0bchunked"),
    "TE form feed": coding("chunked\x0c"),
    "TE no-break space": coding("chunked\xa0"),
    "TE name with space": post("Transfer-Encoding : chunked"),
    "TE name with tab": post("Transfer-Encoding\t: chunked"),
    "TE in HTTP/1.0": post(CHUNKED, body=chunked(BODY), length=False, version="HTTP/1.0"),
}
FIELDS = {
    "space before the colon": post("X-A : 1"),
    "tab before the colon": post("X-A\t: 1"),
    "CL with space before the colon": post("Content-Length : 14", length=False),
    "obs-fold": post("X-A: 1\r\n 2"),
    "obs-fold with a tab": post("X-A: 1\r\n\t2"),
    "obs-fold of the framing": post("Transfer-Encoding:\r\n chunked"),
    "obs-fold first": b"POST /v1/completions HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
    "bare CR in a value": post("X-A: 1\rX-B: 2"),
    "bare CR at a value's end": post("X-A: 1\r"),
    "bare LF in a value": post("X-A: 1\nX-B: 2"),
    "CR CR LF": post("X-A: 1\r\r"),
    "NUL in a value": post("X-A: 1\x002"),
    "NUL in a name": post("X\x00A: 1"),
    "control byte in a value": post("X-A: 1\x012"),
    "escape in a value": post("X-A: \x1b[31m"),
    "DEL in a value": post("X-A: 1\x7f"),
    "vertical tab in a value": post("X-A: 1\x0b2"),
    "control byte in a name": post("X\x01A: 1"),
    "byte over 127 in a name": post("X-\xe9: 1"),
    "space in a name": post("X A: 1"),
    "no colon": post("X-A"),
    "no name": post(": 1"),
    "bracket in a name": post("X[A]: 1"),
    "only LF line ends": post("X-A: 1").replace(b"\r\n", b"\n"),
    "only CR line ends": post("X-A: 1").replace(b"\r\n", b"\r"),
    "head ended by LF LF": b"GET /health HTTP/1.1\r\nHost: a\n\n",
    "head ended by CRLF LF": b"GET /health HTTP/1.1\r\nHost: a\r\n\n",
}
HOSTS = {
    "no Host": post(host=None),
    "two Hosts": post("Host: pointsman.test"),
    "two differing Hosts": post("host: elsewhere"),
    "Host with a space": post(host="a b"),
    "Host with a path": post(host="a/b"),
    "Host with a user": post(host="user@a"),
    "Host with a query": post(host="a?b"),
    "Host list": post(host="a, b"),
    "Host with bad port": post(host="a:b"),
    "absolute-form that disagrees": request("POST", "http://elsewhere/v1/completions", BODY),
    "absolute-form with a user": request("POST", "http://u@pointsman.test/v1/completions", BODY),
    "absolute-form of another port": request("POST", "http://pointsman.test:1/v1/completions"),
    "absolute-form without host": request("POST", "http:///v1/completions", BODY),
    "absolute-form of another scheme": request("GET", "file:///etc/passwd", None),
}
LINES = {
    "control byte in the target": request("GET", "/v1/files/\x01", None),
    "NUL in the target": request("GET", "/v1/files/\x00", None),
    "tab in the target": request("GET", "/v1/files/\t", None),
    "DEL in the target": request("GET", "/v1/files/\x7f", None),
    "space in the target": request("GET", "/v1/files/a b", None),
    "CR in the target": request("GET", "/v1/files/a\rb", None),
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty target": b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": request("GET", "v1/files", None),
    "asterisk": request("GET", "*", None),
    "authority-form": request("GET", "pointsman.test:80", None),
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/1.2": request("GET", "/health", None, version="HTTP/1.2"),
    "HTTP/2.0": request("GET", "/health", None, version="HTTP/2.0"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.10": request("GET", "/health", None, version="HTTP/1.10"),
    "HTTP/01.1": request("GET", "/health", None, version="HTTP/01.1"),
    "http/1.1": request("GET", "/health", None, version="http/1.1"),
    "HTTP/1.": request("GET", "/health", None, version="HTTP/1."),
    "space after the version": request("GET", "/health", None, version="HTTP/1.1 "),
    "space before the method": request(" GET", "/health", None),
    "tab for a space": request("GET", "/health", None).replace(b" ", b"\t", 2),
    "two spaces": request("GET", " /health", None),
    "method with brackets": request("G(E)T", "/health", None),
    "method over 127": request("G\xcaT", "/health", None),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "garbage": b"\xff\xfe\xfd" * 20 + b"\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\nHost: a\r\n\r\n",
}
CHUNKS = {
    "size no number": chunks(b"xyz\r\n"),
    "size empty": chunks(b"\r\nabc\r\n0\r\n\r\n"),
    "size minus": chunks(b"-1\r\na\r\n0\r\n\r\n"),
    "size plus": chunks(b"+1\r\na\r\n0\r\n\r\n"),
    "size 0x": chunks(b"0x1\r\na\r\n0\r\n\r\n"),
    "size underscore": chunks(b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    "size overlong": chunks(b"FFFFFFFFFFFFFFFFF\r\na\r\n"),
    "size 2^64+1": chunks(b"10000000000000001\r\na\r\n0\r\n\r\n"),
    "space before the size": chunks(b" 1\r\na\r\n0\r\n\r\n"),
    "space after the size": chunks(b"1 \r\na\r\n0\r\n\r\n"),
    "NUL after the size": chunks(b"1\x00\r\na\r\n0\r\n\r\n"),
    "size ended by LF": chunks(b"1\na\r\n0\r\n\r\n"),
    "size ended by CR": chunks(b"1\ra\r\n0\r\n\r\n"),
    "last size ended by LF": chunks(b"1\r\na\r\n0\n\r\n"),
    "extension with LF": chunks(b"1;a\nb\r\na\r\n0\r\n\r\n"),
    "extension with CR": chunks(b"1;a\rb\r\na\r\n0\r\n\r\n"),
    "extension with LF in quotes": chunks(b'1;a="\n"\r\na\r\n0\r\n\r\n'),
    "extension with NUL": chunks(b"1;a\x00\r\na\r\n0\r\n\r\n"),
    "extension without end": chunks(b"1;" + b"a" * 200_000),
    "data too long": chunks(b"1\r\nab\r\n0\r\n\r\n"),
    "data too short": chunks(b"5\r\nab\r\n0\r\n\r\n\r\n"),
    "data ended by LF": chunks(b"1\r\na\n0\r\n\r\n"),
    "data not ended": chunks(b"1\r\na0\r\n\r\n"),
    "trailer with space before the colon": chunks(b"0\r\nX : 1\r\n\r\n"),
    "trailer with LF": chunks(b"0\r\nX: 1\n\r\n"),
    "trailer with NUL": chunks(b"0\r\nX: \x00\r\n\r\n"),
    "trailer folded": chunks(b"0\r\nX: 1\r\n 2\r\n\r\n"),
    "trailer no field": chunks(b"0\r\nX\r\n\r\n"),
    "trailer without end": chunks(b"0\r\n" + b"X: 1\r\n" * 20_000),
}
OTHERS = {
    "101 fields": (431, request("GET", "/health", None, *(f"X-{i}: 1" for i in range(101)))),
    "a long field": (431, post("X-A: " + "a" * 70_000)),
    "many long fields": (431, post(*(f"X-{i}: " + "a" * 1000 for i in range(70)))),
    "a long target": ({414, 431}, request("GET", "/v1/" + "a" * 70_000, None)),
    "a long method": ({400, 431}, request("G" * 70_000, "/health", None)),
    "a head without end": (431, b"GET /health HTTP/1.1\r\n" + b"X-A: 1\r\n" * 20_000),
    "CONNECT": (501, request("CONNECT", "elsewhere:443", None)),
    "CONNECT with a path": (501, request("CONNECT", "/v1/completions", BODY)),
    "another expectation": (417, post("Expect: 200-ok")),
    "WebSocket": (
        {400, 426, 501},
        request("GET", "/v1/realtime", None, "Connection: Upgrade", "Upgrade: websocket"),
    ),
    "Upgrade of a request with a body": (
        {400, 426, 501},
        post("Connection: keep-alive, Upgrade", "Upgrade: TLS/1.0"),
    ),
    "body over the limit": (413, post(body=b"x" * 1_000_001)),
    "declared over the limit": (413, lengths(10**12)),
    "chunk over the limit": (413, chunks(b"F4241\r\n" + b"x" * 1_000_001)),
    "chunks over the limit": (413, chunks(chunked(*[b"x" * 1000] * 1001))),
    "chunk size far over the limit": (413, chunks(b"FFFFFFFFFFF\r\nabc")),
}

VECTORS = {
    **{
        name: (400, data)
        for group in (LENGTHS, CODINGS, FIELDS, HOSTS, LINES, CHUNKS)
        for name, data in group.items()
    },
    **OTHERS,
}


def segmentations(data):
    """Whole; the head's every line alone; the last byte alone; a few cuts at random; and, where
    it is short, each byte alone."""
    rng = random.Random(7)
    line_ends = [at + 1 for at, byte in enumerate(data[:4096]) if byte == 10]
    yield []
    yield [at for at in line_ends if at < len(data)]
    yield [at - 1 for at in line_ends]
    yield [len(data) - 1]
    for _ in range(3):
        yield sorted(rng.sample(range(1, len(data)), min(3, len(data) - 1)))
    if len(data) <= 120:
        yield list(range(1, len(data)))


@pytest.mark.parametrize(("status", "data"), VECTORS.values(), ids=VECTORS)
async def test_it_is_refused(router, replica, status, data):
    expected = status if isinstance(status, set) else {status}

    async def refused(cuts):
        async with raw_client(router.url) as client:
            await client.write_cut(data, cuts)
            answer = await client.answer()
            assert answer.status in expected, (cuts, answer)
            assert set(answer.json["error"]) == {"message", "type", "param", "code"}
            assert answer.value("content-type").startswith(b"application/json")
            assert answer.value("connection") == b"close"
            await client.closed()

    await asyncio.gather(*map(refused, segmentations(data)))
    assert replica.requests == []
    async with raw_client(router.url) as client:
        client.write(post() + chunks(chunked(BODY)))
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    assert len(replica.requests) == 2


SURPLUS = {
    "garbage": b"\x00\x01garbage\r\n\r\n",
    "a line": b"xyz\r\n\r\n",
    "the rest of a longer body": b"}}}}\r\n\r\n",
    "a malformed request": request("GET", "/v1/x\x00", None),
    "LF LF": b"\n\n",
    "three empty lines": b"\r\n\r\n\r\nGET /sleep HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
@pytest.mark.parametrize("good", [post(), chunks(chunked(BODY))], ids=["sized", "chunked"])
async def test_what_follows_a_request_and_is_none(router, replica, good, surplus):
    data = good + surplus
    for cuts in ([], [len(good)], [len(good) - 1, len(good) + 1], [len(data) - 1]):
        before = len(replica.requests)
        async with raw_client(router.url) as client:
            await client.write_cut(data, cuts)
            assert (await client.answer()).status == 200
            refusal = await client.answer()
            assert (refusal.status, refusal.value("connection")) == (400, b"close")
            await client.closed()
        assert len(replica.requests) == before + 1, cuts


SMUGGLED = request("POST", "/v1/smuggled", b"{}")


@pytest.mark.parametrize(
    "data",
    [
        request("CONNECT", "a:1", SMUGGLED),
        post("Connection: Upgrade", "Upgrade: websocket", body=SMUGGLED),
        post("Connection: close", body=BODY) + SMUGGLED,
        post(CHUNKED, "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED, length=False),
        post("Content-Length: 0", "Content-Length: 999", body=SMUGGLED, length=False),
        chunks(b"1;\nX\r\na\r\n0\r\n\r\n" + SMUGGLED),
        chunks(b"0\n\r\n" + SMUGGLED),
        request("GET", "/sleep", SMUGGLED),
        post("Expect: other", body=SMUGGLED),
        post(host=None, body=SMUGGLED),
        request("GET", "/health", None, version="HTTP/2.0") + SMUGGLED,
    ],
)
async def test_nothing_is_smuggled_behind_it(router, replica, data):
    async with raw_client(router.url) as client:
        client.write(data)
        await client.rest()
    targets = [recorded.target for recorded in replica.requests]
    assert b"/v1/smuggled" not in targets


@pytest.mark.parametrize("fields", [["Upgrade: h2c"], ["Connection: Upgrade", "Upgrade: h2c"]])
async def test_an_offered_upgrade_does_not_let_the_body_become_a_request(router, replica, fields):
    async with raw_client(router.url) as client:
        client.write(post(*fields, body=SMUGGLED))
        assert (await client.answer()).status == 200
    assert [recorded.content for recorded in replica.requests] == [SMUGGLED]


@pytest.mark.parametrize("dialect", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_errors_towards_anthropics_clients_have_their_shape(router, replica, dialect):
    async with raw_client(router.url) as client:
        client.write(request("POST", dialect, b"x" * 1_000_001))
        answer = await client.answer()
        assert (answer.status, answer.json["type"]) == (413, "error")
        assert answer.json["error"]["type"] == "request_too_large"
        assert answer.json["error"]["message"]
