"""A stream whose replica fails goes on at another one; its client sees one answer."""

import json

import pytest
from harness import House, pieces
from hypothesis import given, settings
from hypothesis import strategies as st

from router.continuation.resume import COMPLETIONS_PATH
from router.core.request import State
from router.http1.chunked import ChunkedBody
from tests.fakes.streaming_engines import DONE, Engine, LlamacppEngine, text_of

CHAT = b"/v1/chat/completions"
PATHS = {"chat": CHAT, "completions": COMPLETIONS_PATH}
FIELDS = {"model": "m", "stream": True, "max_tokens": 30, "stream_options": {"include_usage": True}}
BODIES = {
    "chat": json.dumps({"messages": [{"role": "user", "content": "Why?"}], **FIELDS}).encode(),
    "completions": json.dumps({"prompt": "Tell me a story", **FIELDS}).encode(),
}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMINGS = ["chunked", "length", "close"]


def request(kind, version="1.1", path=None):
    body = BODIES[kind]
    head = b"POST %b HTTP/%b\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    return head % (path or PATHS[kind], version.encode(), len(body)) + body


def wire(events, framing):
    """The whole answer of a replica."""
    body = b"".join(events)
    if framing == "length":
        return ANSWER + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == "close":
        return ANSWER + b"\r\n" + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return ANSWER + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def body_of(down, version="1.1"):
    """What the client got, without the framing, and whether it is complete."""
    head, _, body = down.written.partition(b"\r\n\r\n")
    assert b"ontent-length" not in head.lower()
    assert down.written.count(b"HTTP/1.1 ") == 1
    if version == "1.0":
        assert b"transfer-encoding" not in head.lower()
        return body, down.state == "half-closed"
    assert head.count(b"Transfer-Encoding: chunked") == 1
    held = []
    end = ChunkedBody().decode(body, held)
    assert end in {-1, len(body)}
    return b"".join(held), end >= 0


class Fleet:
    """A house whose replicas are engines, and a client that asks for a stream."""

    def __init__(self, kind, *, names=("r1", "r2"), engine=Engine, version="1.1", path=None):
        self.house = House(names, continues=True)
        self.kind, self.engine, self.version = kind, engine, version
        for name in names:
            self.house.fleet.engine_seen(self.house.fleet.replicas[name], engine.name)
        self.upstreams = [self.house.upstream(name) for name in names]
        self.protocol, self.down = self.house.client()
        self.protocol.data_received(request(kind, version, path))

    @property
    def at_work(self):
        """The connection that has a request, and the engine's answer to that."""
        connection, transport = next(
            (c, t) for c, t in self.upstreams if t.written and not t.is_closing()
        )
        head, _, body = transport.written.partition(b"\r\n\r\n")
        transport.written = b""
        target = head.split(b" ")[1]
        assert b"Content-Length: %d" % len(body) in head
        return connection, transport, self.engine(len(self.upstreams)).stream(target, body)

    def finish(self, framing="chunked"):
        connection, transport, events = self.at_work
        connection.data_received(wire(events, framing))
        if framing == "close":
            connection.eof_received()
            transport.close()

    @property
    def outcomes(self):
        return self.house.plane.continuations.outcomes

    def assert_whole(self):
        told, complete = body_of(self.down, self.version)
        assert complete
        unbroken = b"".join(self.engine(0).stream(PATHS[self.kind], BODIES[self.kind]))
        text, chunks = text_of(told, self.kind)
        wanted, _ = text_of(unbroken, self.kind)
        assert text == wanted
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
        assert told.count(b'"role":"assistant"') == unbroken.count(b'"role":"assistant"')
        assert told.count(b"[DONE]") == 1
        assert told.endswith(DONE)
        usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
        if not usages:  # nobody is left who knows how long the prompt was
            assert self.outcomes == {"ended": 1}
            assert self.engine is not Engine
            return
        assert len(usages) == 1
        assert (
            usages[0]["total_tokens"]
            == json.loads(unbroken.split(b"data: ")[-2])["usage"]["total_tokens"]
        )

    def assert_drained(self):
        self.house.assert_drained()
        assert self.house.plane.continuations.budget.held_bytes == 0


@settings(max_examples=60)
@given(
    st.sampled_from(list(PATHS)),
    st.sampled_from([Engine, LlamacppEngine]),
    st.tuples(
        st.sampled_from(["1.1", "1.0"]), st.sampled_from(FRAMINGS), st.sampled_from(FRAMINGS)
    ),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_a_stream_cut_anywhere_goes_on(kind, engine, framings, share, cuts):
    version, first, second = framings
    fleet = Fleet(kind, engine=engine, version=version)
    connection, transport, events = fleet.at_work
    answer = wire(events, first)
    answer = answer[: int(len(answer) * share)]
    for piece in pieces(answer, cuts):
        connection.data_received(piece)
    assert not transport.is_closing()
    transport.close()
    if fleet.house.dispatcher.open:
        fleet.finish(second)
    fleet.assert_whole()
    fleet.assert_drained()
    assert [state for state, _ in fleet.house.ends.ended] == [State.DONE]


def test_each_of_three_replicas_says_a_part():
    fleet = Fleet("chat", names=("r1", "r2", "r3"))
    for _ in range(2):
        connection, transport, events = fleet.at_work
        connection.data_received(wire(events[:6], "chunked").removesuffix(b"0\r\n\r\n"))
        transport.close()
    fleet.finish()
    fleet.assert_whole()
    fleet.assert_drained()
    assert fleet.outcomes == {"continued": 1}
    assert fleet.house.plane.continuations.requests == {"tokens": 2}


def test_an_end_without_the_answers_end_is_a_break():
    fleet = Fleet("chat")
    connection, _, events = fleet.at_work
    connection.data_received(wire(events[:6], "chunked"))
    fleet.finish()
    fleet.assert_whole()
    fleet.assert_drained()
    assert fleet.house.dispatcher.counters.failed == {"gave_up": 1}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("word", [b'data: {"error":{"message":"boom","code":500}}\n\n', DONE])
def test_a_stream_that_says_that_it_failed_goes_on_elsewhere(word, together):
    fleet = Fleet("chat")
    connection, transport, events = fleet.at_work
    answer = wire([*events[:6], word, DONE], "chunked")
    if together:
        connection.data_received(answer)
    else:
        head, _, rest = answer.partition(b"\r\n\r\n")
        connection.data_received(head + b"\r\n\r\n")
        while rest and not transport.is_closing():
            size = rest.index(b"\r\n") + 4 + int(rest[: rest.index(b"\r\n")], 16)
            connection.data_received(rest[:size])
            rest = rest[size:]
    assert transport.state == "aborted"
    fleet.finish()
    assert b"boom" not in fleet.down.written
    fleet.assert_whole()
    fleet.assert_drained()


def test_what_misses_nothing_but_its_end_needs_no_replica():
    fleet = Fleet("chat", names=("r1",))
    connection, transport, events = fleet.at_work
    connection.data_received(wire(events[:-2], "chunked").removesuffix(b"0\r\n\r\n"))
    transport.close()
    told, complete = body_of(fleet.down)
    assert complete
    assert told.endswith(DONE)
    assert fleet.outcomes == {"ended": 1}
    fleet.assert_drained()


def test_without_another_replica_the_client_waits_and_sees_an_error_and_no_end():
    fleet = Fleet("chat", names=("r1",))
    house = fleet.house
    connection, transport, events = fleet.at_work
    connection.data_received(wire(events[:6], "chunked").removesuffix(b"0\r\n\r\n"))
    told, _ = body_of(fleet.down)
    transport.close()
    assert body_of(fleet.down) == (told, False)
    assert house.dispatcher.open
    house.plane.perform(house.dispatcher.tick(house.loop.now + 60))
    more, complete = body_of(fleet.down)
    assert more.removeprefix(told).lstrip().startswith(b'data: {"error":')
    assert not complete
    assert fleet.outcomes == {"failed": 1}
    fleet.assert_drained()


def test_a_client_that_leaves_leaves_nothing():
    fleet = Fleet("chat")
    connection, transport, events = fleet.at_work
    connection.data_received(wire(events[:6], "chunked").removesuffix(b"0\r\n\r\n"))
    assert fleet.house.plane.continuations.budget.held_bytes > len(BODIES["chat"])
    assert fleet.house.plane.buffered_bytes == 0
    transport.close()
    _, second, _ = fleet.at_work
    fleet.down.close()
    assert second.state == "aborted"
    assert fleet.outcomes == {"gone": 1}
    fleet.assert_drained()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        ANSWER + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_a_replica_that_does_not_go_on_is_passed_over(head):
    fleet = Fleet("chat", names=("r1", "r2", "r3"))
    connection, transport, events = fleet.at_work
    connection.data_received(wire(events[:6], "chunked").removesuffix(b"0\r\n\r\n"))
    transport.close()
    connection, _, _ = fleet.at_work
    connection.data_received(head)
    fleet.finish()
    fleet.assert_whole()
    fleet.assert_drained()


def test_the_path_changes_with_the_method_and_the_query_is_left_out():
    fleet = Fleet("chat", path=CHAT + b"?a=%2F")
    connection, transport = fleet.upstreams[0]
    events = Engine(0).stream(CHAT, transport.written.partition(b"\r\n\r\n")[2])
    assert transport.written.startswith(b"POST /v1/chat/completions?a=%2F HTTP/1.1\r\n")
    transport.written = b""
    connection.data_received(wire(events[:6], "chunked").removesuffix(b"0\r\n\r\n"))
    transport.close()
    assert fleet.upstreams[1][1].written.startswith(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\n")
    fleet.finish()
    fleet.assert_whole()


def test_a_coded_stream_is_relayed_as_it_comes():
    fleet = Fleet("chat")
    connection, _, _ = fleet.at_work
    head = ANSWER + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.data_received(head + b"3\r\n\x1f\x8b\n\r\n")
    assert fleet.down.written.endswith(b"\r\n\r\n3\r\n\x1f\x8b\n\r\n")
    connection.data_received(b"0\r\n\r\n")
    assert fleet.house.plane.continuations.not_continued == {"unreadable_stream": 1}
    fleet.assert_drained()


def test_a_chat_of_an_unknown_engine_is_relayed_as_it_comes():
    fleet = Fleet("chat", engine=Engine)
    fleet.house.fleet.engine_seen(fleet.house.fleet.replicas["r1"], "generic")
    connection, _, _ = fleet.at_work
    connection.data_received(wire([b"data: {}\n\n", DONE], "chunked"))
    told, complete = body_of(fleet.down)
    assert (told, complete) == (b"data: {}\n\n" + DONE, True)
    assert fleet.house.plane.continuations.not_continued == {"engine": 1}
    fleet.assert_drained()


@pytest.mark.parametrize("last", [b"", b"data: [DONE]\n"])
def test_an_end_that_is_not_understood_is_an_end(last):
    fleet = Fleet("completions")
    connection, _, _ = fleet.at_work
    connection.data_received(wire([b"data: what?\n\n", *([last] if last else [])], "chunked"))
    told, complete = body_of(fleet.down)
    assert (told, complete) == (b"data: what?\n\n" + last, True)
    assert fleet.house.ends.ended == [(State.DONE, "r1")]
    fleet.assert_drained()


def test_over_budget_the_stream_goes_on_without():
    fleet = Fleet("chat")
    continuations = fleet.house.plane.continuations
    continuations.budget.total_bytes = 10
    fleet.finish()
    _, complete = body_of(fleet.down)
    assert complete
    assert continuations.not_continued == {"total_bytes": 1}
    fleet.assert_drained()
