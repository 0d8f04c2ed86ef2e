"""A read that is one whole event takes a shorter way; nothing but the time it takes may tell."""

import pytest
from harness import House, pieces
from hypothesis import given
from hypothesis import strategies as st

from router.core.request import State
from router.proxy.relay import TOKENS_AT_ONCE

BODY = b'{"model":"m","prompt":"hello","stream":true}'
REQUEST = (
    b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b"9\r\ndata: f\n\n\r\n"
LAST = b"0\r\n\r\n"

text = st.binary(max_size=30) | st.binary(min_size=4070, max_size=4110)
event = st.sampled_from(
    [b"data: %b\n\n", b"data:%b\r\n\r\n", b": %b\n\n", b"event: e\ndata: %b\n\n"]
)
events = st.lists(
    st.builds(lambda form, payload: form % payload, event, text), min_size=1, max_size=3
)
spelling = st.sampled_from(
    [b"%x\r\n%b\r\n", b"%X\r\n%b\r\n", b"0%x\r\n%b\r\n", b"%x;a=b\r\n%b\r\n"]
)
chunks = st.lists(st.tuples(spelling, events.map(b"".join)), max_size=6)


class Stream:
    """One streamed answer under way, its head relayed already."""

    def __init__(self, first=b"data: f\n\n"):
        first = b"%x\r\n%b\r\n" % (len(first), first)
        self.house = House()
        client, self.down = self.house.client()
        self.connection, self.up = self.house.upstream()
        client.data_received(REQUEST)
        self.connection.data_received(HEAD)
        self.connection.data_received(first)
        self.ahead_bytes = len(self.down.written)
        self.told = []
        tell = self.house.dispatcher.progress
        self.house.dispatcher.progress = lambda attempt, tokens, now: (
            self.told.append(tokens),
            tell(attempt, tokens, now),
        )[1]

    def receive(self, data):
        self.connection.data_received(data)

    @property
    def body(self):
        return self.down.written[self.ahead_bytes :]


@given(chunks)
def test_the_short_way_tells_and_relays_as_the_long_one(parts):
    wire = [form % (len(payload), payload) for form, payload in parts]
    short, long = Stream(), Stream()
    for chunk in wire:
        short.receive(chunk)
        long.receive(chunk[:1])
        long.receive(chunk[1:])
    for stream in (short, long):
        stream.receive(LAST)
        assert stream.body == b"".join(wire) + LAST
        assert stream.house.ends.ended == [(State.DONE, "r1")]
        assert stream.house.plane.sent_bytes_total == len(stream.down.written)
        stream.house.assert_drained()
    assert sum(short.told) == sum(long.told)


@given(st.lists(st.integers(1, 4), max_size=40))
def test_every_event_is_told(numbers):
    stream = Stream()
    for number in numbers:
        payload = b'data: {"text":"x"}\n\n' * number
        stream.receive(b"%x\r\n%b\r\n" % (len(payload), payload))
    stream.receive(LAST)
    assert sum(stream.told) == sum(numbers)


def test_events_that_begin_to_share_chunks_are_found_out_soon():
    stream = Stream(first=b"data: %b\n\n" % (b"x" * 60))
    pair = b"data: one\n\ndata: two\n\n"
    for _ in range(40):
        stream.receive(b"%x\r\n%b\r\n" % (len(pair), pair))
    stream.receive(LAST)
    assert 80 - TOKENS_AT_ONCE <= sum(stream.told) <= 80


@pytest.mark.parametrize("payload", [b": ping\n\n", b"event: ping\n\n", b"\n", b"retry: 10000\n\n"])
def test_what_is_no_event_is_not_told(payload):
    stream = Stream()
    for _ in range(20):
        stream.receive(b"%x\r\n%b\r\n" % (len(payload), payload))
    stream.receive(LAST)
    assert sum(stream.told) == 0


@pytest.mark.parametrize(
    "chunk",
    [
        b"9\r\ndata: abc\n\r\n",  # a byte more than the size says
        b"b\r\ndata: abc\n\r\n",  # one less
        b"a\r\ndata: abc\n\n\n",
        b"a\r\ndata: abc\n\r\r",
        b"a\n\ndata: abc\n\r\n",
        b"A\r\r\ndata: ab\n\r\n",
        b"g\r\ndata: abc\n\r\n",
        b"-a\r\ndata: abc\n\n\r\n",
    ],
)
@given(ahead=st.integers(0, 2))
def test_malformed_framing_ends_the_stream(chunk, ahead):
    stream = Stream()
    for _ in range(ahead):
        stream.receive(FIRST)
    stream.receive(chunk)
    stream.receive(LAST)
    assert stream.house.ends.ended == [(State.FAILED, "r1")]
    assert not stream.body.endswith(LAST)
    assert stream.down.is_closing()
    stream.house.assert_drained()


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_the_short_way_is_taken_up_again_after_any_cut(cuts):
    wire = FIRST * 8
    stream = Stream()
    for piece in pieces(wire, cuts):
        stream.receive(piece)
        stream.receive(b"")
    stream.receive(FIRST)
    stream.receive(LAST)
    assert stream.body == wire + FIRST + LAST
    stream.house.assert_drained()


def test_bytes_of_a_cancelled_stream_reach_nobody():
    stream = Stream()
    stream.receive(FIRST)
    stream.down.close()
    assert stream.up.state == "aborted"
    stream.receive(FIRST)
    assert stream.body == FIRST
    stream.house.assert_drained()
