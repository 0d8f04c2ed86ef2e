import pytest

from router.http1.errors import ProtocolError
from router.http1.response import BodyKind, parse_response_head


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "lines", "kind", "length", "keep_alive"),
    [
        (b"POST", [b"HTTP/1.1 200 OK", b"Content-Length: 3"], BodyKind.LENGTH, 3, True),
        (b"POST", [b"HTTP/1.1 200 OK", b"Content-Length: 0"], BodyKind.LENGTH, 0, True),
        (
            b"POST",
            [b"HTTP/1.1 200 OK", b"transfer-encoding: Chunked"],
            BodyKind.CHUNKED,
            None,
            True,
        ),
        (b"POST", [b"HTTP/1.1 200"], BodyKind.CLOSE, None, False),
        (b"POST", [b"HTTP/1.0 200 OK", b"Content-Length: 3"], BodyKind.LENGTH, 3, False),
        (b"HEAD", [b"HTTP/1.1 200 OK", b"Content-Length: 3"], BodyKind.NONE, 3, True),
        (b"POST", [b"HTTP/1.1 204 No Content"], BodyKind.NONE, None, True),
        (b"GET", [b"HTTP/1.1 304 Not Modified", b"Content-Length: 9"], BodyKind.NONE, 9, True),
        (
            b"GET",
            [b"HTTP/1.1 200 OK", b"Content-Length: 3", b"Connection: close"],
            BodyKind.LENGTH,
            3,
            False,
        ),
    ],
)
def test_framing(method, lines, kind, length, keep_alive):
    parsed = parse_response_head(head(*lines), method)
    assert (parsed.body, parsed.length, parsed.keep_alive) == (kind, length, keep_alive)


def test_fields_pass_as_they_came():
    parsed = parse_response_head(
        head(
            b"HTTP/1.1 429 Too Many Requests",
            b"Retry-After: 3",
            b"set-cookie: a=1",
            b"Set-Cookie: b=2",
            b"Connection: X-Private",
            b"x-private: 1",
            b"Content-Length: 2",
            b"Content-Type: text/event-stream; charset=utf-8",
        ),
        b"POST",
    )
    assert parsed.lines == (
        b"\r\nRetry-After: 3\r\nset-cookie: a=1\r\nSet-Cookie: b=2"
        b"\r\nContent-Type: text/event-stream; charset=utf-8"
    )
    assert parsed.event_stream
    assert parsed.field(b"retry-after") == b"3"


@pytest.mark.parametrize(
    "lines",
    [
        [b"HTTP/1.1 2000 OK"],
        [b"HTTP/1.1 99 OK"],
        [b"HTTP/2 200 OK"],
        [b"ICY 200 OK"],
        [b"HTTP/1.1 200 OK", b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"HTTP/1.1 200 OK", b"Content-Length: 1", b"Content-Length: 1"],
        [b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip, chunked"],
        [b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked"],
        [b"HTTP/1.1 200 OK", b"X : 1"],
        [b"HTTP/1.1 200 OK", b"X: 1", b" folded"],
        [b"HTTP/1.1 200 OK", b"X: 1\n2"],
    ],
)
def test_refuses(lines):
    with pytest.raises(ProtocolError):
        parse_response_head(head(*lines), b"POST")


SENT = "Date: Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("lines", "after_s"),
    [
        ([], None),
        (["Retry-After: 7"], 7.0),
        (["Retry-After: Sun, 06 Nov 1994 08:50:07 GMT", SENT], 30.0),
        (["Retry-After: Sunday, 06-Nov-94 08:50:07 GMT", SENT], 30.0),
        (["Retry-After: Sun Nov  6 08:50:07 1994", SENT], 30.0),
        (["Retry-After: Sun, 06 Nov 1994 08:49:07 GMT", SENT], 0.0),
        (["Retry-After: Sun, 06 Nov 1994 08:50:07 GMT"], None),
        (["Retry-After: Sun, 06 Nov 1994 08:50:07 GMT", "Date: today"], None),
        (["Retry-After: soon", SENT], None),
        (["Retry-After: Sun, 06 Nov 999999994 08:50:07 GMT", SENT], None),
        (["Retry-After: -3", SENT], None),
        (["Retry-After: \xb2", SENT], None),
    ],
)
def test_when_to_come_again_is_a_number_or_a_date(lines, after_s):
    block = "\r\n".join(["HTTP/1.1 503 Busy", *lines, "Content-Length: 0", "", ""])
    head = parse_response_head(block.encode("latin-1"), b"GET")
    assert head.retry_after_s == after_s
