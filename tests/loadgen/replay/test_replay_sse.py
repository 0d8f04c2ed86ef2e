"""Server-sent events, however they are cut into reads."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.replay.sse import EventReader


def events_of(*reads):
    reader = EventReader()
    return [data for read in reads for data in reader.feed(read)]


def by_the_standard(stream):
    """The events of a whole stream, straight from the wording of the standard."""
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    events, data = [], []
    for line in lines[:-1]:  # what has no line end is no line yet
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
    return events


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"event: message\nid: 7\nretry: 3\ndata: a\n\n", [b"a"]),
        (b"database: a\n\n", []),
        (b"\n\n\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: cut off\n", [b"a"]),
        (b"data: a\n\ndata: cut", [b"a"]),
    ],
)
def test_what_the_standard_says(stream, expected):
    assert events_of(stream) == expected
    assert events_of(*(bytes([byte]) for byte in stream)) == expected
    assert by_the_standard(stream) == expected


def test_an_event_is_delivered_by_the_very_read_that_ends_it():
    reader = EventReader()
    assert reader.feed(b"data: a\r\n\r") == [b"a"]
    assert reader.feed(b"\ndata: b\n\n") == [b"b"]


_PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b"a", b"b: c", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"id: 1",
     b"data: x\n\n", b"data: y\r\n\r\n", b"\xef\xbb\xbf", b"", b" "]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=30))
def test_any_split_gives_the_events_of_the_standard(reads):
    stream = b"".join(reads)
    assert events_of(*reads) == by_the_standard(stream)
    assert events_of(stream) == by_the_standard(stream)
