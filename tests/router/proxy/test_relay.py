"""The relay is byte-exact under any cut of the bytes on both sides."""

import json

import pytest
from harness import House, pieces
from hypothesis import given
from hypothesis import strategies as st

from router.core.request import State
from router.http1.chunked import ChunkedBody

BODY = json.dumps({"model": "m", "prompt": "hello", "n": None}).encode()
HEAD = b"POST /v1/completions?a=%2F&b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
ANSWER_LINES = b"\r\nx-pointsman-replica: r1\r\nx-request-id: "

cuts = st.lists(st.integers(0, 10_000), max_size=12)
events = st.lists(st.binary(max_size=60).map(lambda b: b"data: " + b + b"\n\n"), max_size=6)


def request_chunked(size: int) -> bytes:
    parts = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    encoded = b"".join(b"%X;x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + encoded + b"0\r\nHost: evil\r\n\r\n"


def sent(transport) -> tuple[list[bytes], bytes]:
    head, _, body = transport.written.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def received(transport) -> tuple[bytes, bytes]:
    head, _, body = transport.written.partition(b"\r\n\r\n")
    return head, body


@given(cuts, st.integers(1, 20), st.booleans())
def test_request_arrives_as_it_was_sent(cuts, size, chunked):
    house = House()
    client, _ = house.client()
    _, upstream = house.upstream()
    for piece in pieces(request_chunked(size) if chunked else REQUEST, cuts):
        client.data_received(piece)
    lines, body = sent(upstream)
    assert lines[:4] == [
        b"POST /v1/completions?a=%2F&b HTTP/1.1",
        b"Host: h",
        b"X-A: 1",
        b"x-a: 2",
    ]
    assert b"Content-Length: %d" % len(BODY) in lines
    assert not any(b"evil" in line for line in lines)
    assert body == BODY


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts if p) + b"0\r\n\r\n"


@given(events, cuts, cuts, st.sampled_from(["length", "chunked", "close"]), st.integers(0, 3))
def test_answer_arrives_as_it_was_sent(events, cuts, request_cuts, framing, interim):
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    for piece in pieces(REQUEST, request_cuts):
        client.data_received(piece)
    body = b"".join(events)
    head = b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nX: \xe9\r\nx: 2\r\n"
    if framing == "length":
        wire = head + b"content-length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunked":
        wire = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(events)
    else:
        wire = head + b"\r\n" + body
    for piece in pieces(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * interim + wire, cuts):
        connection.data_received(piece)
    if framing == "close":
        connection.eof_received()
        upstream.close()
    got_head, got_body = received(down)
    assert got_head.startswith(
        b"HTTP/1.1 200 Fine\r\nContent-Type: text/event-stream\r\nX: \xe9\r\nx: 2\r\n"
    )
    assert ANSWER_LINES in got_head
    if framing == "length":
        assert got_body == body
    elif framing == "chunked":
        assert got_body == chunked(events)
    else:
        assert dechunked(got_body) == body
    assert house.ends.ended == [(State.DONE, "r1")]
    house.assert_drained()


def dechunked(data: bytes) -> bytes:
    body, parts = ChunkedBody(), []
    assert body.decode(data, parts) == len(data)
    return b"".join(parts)


@given(events, cuts)
def test_http10_client_gets_the_plain_body_and_the_close(events, cuts):
    house = House()
    client, down = house.client()
    connection, _ = house.upstream()
    client.data_received(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(events)
    for piece in pieces(wire, cuts):
        connection.data_received(piece)
    head, body = received(down)
    assert b"\r\nConnection: close" in head
    assert b"Transfer-Encoding" not in head
    assert body == b"".join(events)
    assert down.state == "half-closed"
    house.assert_drained()


@given(cuts, st.integers(1, 5))
def test_pipelined_requests_are_answered_in_order(cuts, count):
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    for piece in pieces(REQUEST * count, cuts):
        client.data_received(piece)
    for number in range(count):
        assert upstream.written.count(b"POST ") == number + 1
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
    bodies = [part[:1] for part in down.written.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"%d" % number for number in range(count)]
    house.assert_drained()


@given(st.integers(0, 200), st.sampled_from(["length", "chunked"]), st.booleans())
def test_a_broken_answer_never_looks_complete(cut, framing, fin):
    events = [b"data: one\n\n", b"data: two\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    if framing == "length":
        wire = head + b"Content-Length: 22\r\n\r\n" + b"".join(events)
    else:
        wire = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(events)
    began = wire.index(b"\r\n\r\n") + 4
    cut = began + cut % (len(wire) - began)
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    client.data_received(REQUEST)
    connection.data_received(wire[:cut])
    if fin:
        connection.eof_received()
    upstream.close()
    _, body = received(down)
    assert not body.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in body
    if framing == "length":
        assert len(body) < 22
    assert down.is_closing()
    assert house.ends.ended == [(State.FAILED, "r1")]
    house.assert_drained()


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nABC",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n0\r\n\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 204 No\r\n\r\nabc",
    ],
)
def test_bytes_after_the_answer_reach_nobody(wire):
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    client.data_received(REQUEST)
    connection.data_received(wire)
    assert b"ABC" not in down.written
    assert down.written.count(b"HTTP/1.1 ") == 1
    assert upstream.is_closing()
    assert house.ends.ended == [(State.DONE, "r1")]
    house.assert_drained()


def test_a_client_that_stops_reading_stops_its_upstream():
    house = House()
    client, _ = house.client()
    connection, upstream = house.upstream()
    client.data_received(REQUEST)
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
    client.pause_writing()
    assert not upstream.reading
    client.resume_writing()
    assert upstream.reading
    client.pause_writing()
    connection.data_received(b"0\r\n\r\n")
    assert upstream.reading, "a pooled connection is never left paused"


def test_a_client_that_reads_nothing_is_dropped():
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    client.data_received(REQUEST)
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
    client.pause_writing()
    assert client.deadline_s == house.loop.now + 60
    client.deadline_missed()
    assert down.state == "aborted"
    assert upstream.state == "aborted"
    house.assert_drained()
    assert house.ends.ended == [(State.GONE, "r1")]


@pytest.mark.parametrize("began", [False, True])
def test_a_client_that_leaves_cancels_its_upstream(began):
    house = House()
    client, down = house.client()
    connection, upstream = house.upstream()
    client.data_received(REQUEST)
    if began:
        connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    down.close()
    assert upstream.state == "aborted"
    house.assert_drained()
    assert house.ends.ended == [(State.GONE, "r1")]


def test_a_failure_before_the_answer_goes_elsewhere():
    house = House(replicas=("r1", "r2"))
    client, down = house.client()
    _, first = house.upstream("r1")
    second, second_transport = house.upstream("r2")
    client.data_received(REQUEST)
    first.close()
    assert second_transport.written.endswith(BODY)
    second.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert down.written.endswith(b"ok")
    assert house.ends.ended == [(State.DONE, "r2")]
    house.assert_drained()


def test_when_nobody_can_answer_the_client_is_told():
    house = House()
    client, down = house.client()
    connection, _ = house.upstream()
    client.data_received(REQUEST)
    connection.data_received(b"garbage\r\n\r\n")
    head, body = received(down)
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body)["error"]["code"] == "upstream_failed"
    house.assert_drained()
