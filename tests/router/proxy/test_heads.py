"""What is remembered of heads is what would be read again."""

from hypothesis import given
from hypothesis import strategies as st

from router.api.routes import Routes
from router.http1.errors import ProtocolError
from router.http1.request import parse_request_head
from router.proxy.heads import MAX_HEADS, RequestHeads, ResponseHeads

lines = st.sampled_from(
    [
        b"Host: h",
        b"Content-Length: 5",
        b"Content-Length: 7",
        b"content-length: 5",
        b"Content-Length: x",
        b"Content-Length: ",
        b"content-length: ",
        b"Content-Length: 5 ",
        b"X: \tContent-Length: 9",
        b"Transfer-Encoding: chunked",
        b"X-Session-Id: s",
        b"Connection: close",
    ]
)


def reading(read, block):
    try:
        return read(block)
    except ProtocolError as error:
        return error.message


@given(st.lists(st.lists(lines, max_size=4), min_size=1, max_size=8))
def test_memory_changes_no_verdict(heads):
    memory = RequestHeads(Routes([]))
    for head in heads:
        block = b"\r\n".join([b"POST /v1/completions HTTP/1.1", *head]) + b"\r\n\r\n"
        remembered = reading(memory.read, block)
        fresh = reading(RequestHeads(Routes([])).read, block)
        if isinstance(fresh, str):
            assert remembered == fresh
            continue
        (known, length), (fresh_known, fresh_length) = remembered, fresh
        assert length == fresh_length == parse_request_head(block).length
        assert known.wire == fresh_known.wire
        assert known.session == fresh_known.session
        assert known.head.keep_alive == fresh_known.head.keep_alive


def test_memory_is_bounded():
    memory = RequestHeads(Routes([]))
    for number in range(MAX_HEADS + 10):
        memory.read(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        assert len(memory._known) <= MAX_HEADS
    memory.read(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 8000 + b"\r\n\r\n")
    assert not any(len(block) > 8000 for block in memory._known)


def test_responses_to_head_have_no_body():
    memory = ResponseHeads()
    block = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    for _ in range(2):
        assert memory.read(block, b"GET")[0].body.value == "length"
        assert memory.read(block, b"HEAD")[0].body.value == "none"
        assert memory.read(block, b"HEAD")[1] == 5
