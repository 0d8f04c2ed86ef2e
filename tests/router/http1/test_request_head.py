import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.http1.errors import ProtocolError
from router.http1.fields import check_unfinished
from router.http1.request import parse_request_head


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


def parse(*lines: bytes):
    return parse_request_head(head(b"POST /v1/completions HTTP/1.1", *lines))


def test_forwards_end_to_end_fields_as_they_came():
    parsed = parse(
        b"hOsT: a",
        b"X-One:  spaced \t",
        b"x-one: again",
        b"Connection: keep-alive, X-Gone",
        b"x-gone: 1",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Content-Length: 3",
        b"X-Latin: caf\xe9",
        b"X-Empty:",
    )
    assert parsed.lines == (
        b"\r\nhOsT: a\r\nX-One:  spaced \t\r\nx-one: again\r\nX-Latin: caf\xe9\r\nX-Empty:"
    )
    assert parsed.length == 3
    assert parsed.keep_alive
    assert parsed.field(b"x-latin") == b"caf\xe9"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"Keep-Alive, CLOSE", False),
        (b"1.0", b"", False),
        (b"1.0", b"Keep-Alive", True),
    ],
)
def test_persistence(version, connection, kept):
    lines = [b"GET / HTTP/" + version, b"Host: a"]
    if connection:
        lines.append(b"Connection: " + connection)
    assert parse_request_head(head(*lines)).keep_alive is kept


def test_framing_fields_cannot_be_named_away():
    parsed = parse(b"Host: a", b"Connection: host, content-length", b"Content-Length: 5")
    assert parsed.length == 5
    assert parsed.lines == b"\r\nHost: a"


def test_h2c_offer_is_ignored():
    parsed = parse(
        b"Host: a",
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQ",
        b"Content-Length: 2",
    )
    assert parsed.lines == b"\r\nHost: a"
    assert parsed.length == 2


def test_absolute_form_becomes_origin_form():
    for target, origin in [
        (b"http://a/v1/x?y", b"/v1/x?y"),
        (b"HTTP://A", b"/"),
        (b"http://a?q", b"/?q"),
    ]:
        parsed = parse_request_head(head(b"GET " + target + b" HTTP/1.1", b"Host: a"))
        assert parsed.target == origin


MALFORMED = {
    "both framings": [b"Host: a", b"Content-Length: 1", b"Transfer-Encoding: chunked"],
    "both framings, other order": [
        b"Host: a",
        b"Transfer-Encoding: chunked",
        b"Content-Length: 1",
    ],
    "differing lengths": [b"Host: a", b"Content-Length: 1", b"Content-Length: 2"],
    "list of lengths": [b"Host: a", b"Content-Length: 1, 2"],
    "signed length": [b"Host: a", b"Content-Length: +1"],
    "negative length": [b"Host: a", b"Content-Length: -1"],
    "hex length": [b"Host: a", b"Content-Length: 0x1"],
    "overlong length": [b"Host: a", b"Content-Length: 1" + b"0" * 20],
    "empty length": [b"Host: a", b"Content-Length:"],
    "space before colon": [b"Host: a", b"X : 1"],
    "space before colon of a framing field": [b"Host: a", b"Content-Length : 1"],
    "folding": [b"Host: a", b"X: 1", b" 2"],
    "folding first": [b" X: 1", b"Host: a"],
    "no colon": [b"Host: a", b"X"],
    "empty name": [b"Host: a", b": 1"],
    "bare CR": [b"Host: a", b"X: 1\r2"],
    "bare LF": [b"Host: a", b"X: 1\nY: 2"],
    "NUL": [b"Host: a", b"X: \x00"],
    "DEL": [b"Host: a", b"X: \x7f"],
    "control byte": [b"Host: a", b"X: \x01"],
    "unknown coding": [b"Host: a", b"Transfer-Encoding: gzip"],
    "chunked not last": [b"Host: a", b"Transfer-Encoding: chunked, gzip"],
    "chunked not alone": [b"Host: a", b"Transfer-Encoding: gzip, chunked"],
    "chunked twice": [b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "padded coding": [b"Host: a", b"Transfer-Encoding: \x0bchunked"],
    "no host": [b"X: 1"],
    "two hosts": [b"Host: a", b"Host: a"],
    "bad host": [b"Host: a b"],
    "host with a path": [b"Host: a/b"],
    "websocket": [b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket"],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses(name):
    with pytest.raises(ProtocolError) as caught:
        parse(*MALFORMED[name])
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /", 400),
        (b"GET / HTTP/2.0", 400),
        (b"GET / HTTP/1.2", 400),
        (b"GET / http/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET /\x01 HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET x HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET http://b/ HTTP/1.1", 400),
        (b"GET http://u@a/ HTTP/1.1", 400),
        (b"G@T / HTTP/1.1", 400),
        (b"CONNECT a:1 HTTP/1.1", 501),
    ],
)
def test_refuses_request_line(line, status):
    with pytest.raises(ProtocolError) as caught:
        parse_request_head(head(line, b"Host: a"))
    assert caught.value.status == status


def test_other_statuses():
    for lines, status in [
        ([b"Host: a", *[b"X: 1"] * 100], 431),
        ([b"Host: a", b"Expect: 200-ok"], 417),
        ([b"Host: a", b"Expect: 100-continue", b"Expect: 100-continue"], 417),
    ]:
        with pytest.raises(ProtocolError) as caught:
            parse(*lines)
        assert caught.value.status == status


def test_http10_rules():
    with pytest.raises(ProtocolError):
        parse_request_head(head(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked"))
    parsed = parse_request_head(head(b"GET / HTTP/1.0", b"Expect: 100-continue"))
    assert not parsed.expects_continue


@given(st.binary(max_size=80), st.integers(0, 80))
def test_an_unfinished_head_is_refused_only_if_the_finished_one_is(garbage, cut):
    """What is refused early would be refused anyway: the verdict does not depend on the cuts."""
    block = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + garbage.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    end = block.find(b"\r\n\r\n") + 4
    try:
        check_unfinished(block[: min(28 + cut, end - 1)])
    except ProtocolError:
        with pytest.raises(ProtocolError):
            parse_request_head(block[:end])
