import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.http1.chunked import ChunkedBody
from router.http1.errors import ProtocolError


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


def encode(chunks: list[bytes], trailer: bytes = b"", extension: bytes = b"") -> bytes:
    pieces = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk]
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


chunk_lists = st.lists(st.binary(min_size=1, max_size=40) | st.binary(min_size=4090, max_size=4100))


@given(
    chunk_lists,
    st.lists(st.integers(0, 100_000), max_size=20),
    st.binary(max_size=5),
    st.sampled_from([b"", b"X-T: 1\r\n", b"A: 1\r\nB:\r\n"]),
    st.sampled_from([b"", b";a=b", b";q", b';a="b;c";d']),
)
def test_any_cut_finds_the_same_end_and_content(chunks, cuts, surplus, trailer, extension):
    message = encode(chunks, trailer, extension)
    for decoding in (False, True):
        body, pieces, seen = ChunkedBody(), [], 0
        for part in cut(message + surplus, cuts):
            end = body.decode(part, pieces) if decoding else body.scan(part)
            if end >= 0:
                assert seen + end == len(message)
                break
            seen += len(part)
        assert body.ended
        if decoding:
            assert b"".join(pieces) == b"".join(chunks)


def scan_all(message: bytes, step: int) -> None:
    body = ChunkedBody()
    for at in range(0, len(message), step):
        body.scan(message[at : at + step])


MALFORMED = [
    b"\r\n",
    b"g\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\n",
    b" 1\r\n",
    b"1 \r\n",
    b"1_0\r\n",
    b"1\n",
    b"1\r1",
    b"1;a\rb\r\n",
    b"1;a\nb\r\n",
    b"1;a\x00\r\n",
    b"1; \r\n",
    b"1;\r\n",
    b"1;a=\r\n",
    b'1;a="b\r\n',
    b"1" * 20 + b"\r\n",
    b"1\r\nab\r\n",
    b"1\r\na\n",
    b"1\r\na\r0",
    b"0\r\nX : 1\r\n",
    b"0\r\n X: 1\r\n",
    b"0\r\nX: 1\n",
    b"0\r\nX\r\n",
    b"1;" + b"a" * 2000 + b"\r\n",
    b"0\r\n" + b"X: " + b"a" * 9000 + b"\r\n",
    b"0\r\n" + b"X: 1\r\n" * 2100,
]


@pytest.mark.parametrize("message", MALFORMED)
@pytest.mark.parametrize("step", [1, 2, 7, 100_000])
def test_malformed_framing_is_refused_however_it_is_cut(message, step):
    with pytest.raises(ProtocolError):
        scan_all(message, step)


class Silent:
    completed = 0

    def on_message_complete(self):
        self.completed += 1


@given(st.lists(st.sampled_from(list(b"0123abcF;= \t\r\n\x00xX:-")), max_size=12))
def test_nothing_passes_that_an_independent_parser_refuses(framing):
    """llhttp, which servers behind us use, must never see less of a body than we do."""
    message = bytes(framing) + b"0\r\n\r\n"
    body = ChunkedBody()
    try:
        end = body.scan(message)
    except ProtocolError:
        return
    parser = httptools.HttpRequestParser(other := Silent())
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.feed_data(message[:end] if end >= 0 else message)
    assert other.completed == (1 if end >= 0 else 0)


def test_boundaries():
    body = ChunkedBody()
    assert body.at_boundary
    assert body.scan(b"5\r\nab") == -1
    assert not body.at_boundary
    assert body.scan(b"cde\r\n") == -1
    assert body.at_boundary
    assert body.scan(b"1") == -1
    assert not body.at_boundary
