import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.prefix import BLOCK_IDS, id_keys, root
from router.core.prefix_index import PrefixIndex
from router.kv_events.stream import EventStream
from router.kv_events.tracker import Tracker

IDS = list(range(BLOCK_IDS))
KEYS = id_keys([*IDS, 0], root(None, "m"))
STORED = ["BlockStored", list(range(16)), None, IDS, 16, None]
REMOVED = ["BlockRemoved", [15]]
CLEARED = ["AllBlocksCleared"]


def message(number, *events, topic=b"kv"):
    return [topic, number.to_bytes(8, "big"), msgspec.msgpack.encode([0.0, events])]


def stream():
    index = PrefixIndex()
    return index, EventStream(Tracker(index, "a", lambda _: "m"))


def believed(index):
    return bool(index.match(KEYS, BLOCK_IDS))


def test_messages_in_order():
    index, events = stream()
    events.take(message(7, STORED))
    assert believed(index)
    events.take(message(8, REMOVED))
    assert not believed(index)
    events.take(message(9, STORED, REMOVED, STORED))
    assert believed(index)
    events.take(message(10, CLEARED))
    assert not believed(index)
    counters = events.counters
    assert (counters.messages, counters.events) == (4, 6)
    assert (counters.gaps, counters.restarts, counters.malformed) == (0, 0, 0)


def test_what_was_missed_leaves_belief():
    index, events = stream()
    events.take(message(0, STORED))
    events.take(message(4, REMOVED))
    assert (events.counters.gaps, events.counters.missed) == (1, 3)
    assert believed(index), "whether it was removed is not known any more"
    assert events.tracker.blocks == 0
    events.take(message(5, STORED))
    events.take(message(6, REMOVED))
    assert not believed(index)


@pytest.mark.parametrize("number", [0, 3, 5])
def test_an_engine_that_starts_anew_has_an_empty_cache(number):
    index, events = stream()
    events.take(message(5, STORED))
    events.take(message(number))
    assert events.counters.restarts == 1
    assert not believed(index)
    events.take(message(number + 1, STORED))
    assert believed(index)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"kv"],
        [b"kv", b"\0" * 8],
        [b"kv", b"\0" * 7, b"\x92\xcb" + b"\0" * 8 + b"\x90"],
        [b"kv", b"\0" * 7 + b"\x02", b"garbage"],
        [b"kv", b"\0" * 7 + b"\x02", msgspec.msgpack.encode([0.0, [["BlockStored", 1]]])],
        [b"kv", b"\0" * 7 + b"\x02", b"", b"more"],
    ],
)
def test_garbage_is_counted_and_leaves_belief(frames):
    index, events = stream()
    events.take(message(1, STORED))
    events.take(frames)
    assert events.counters.malformed == 1
    assert believed(index)
    assert events.tracker.blocks == 0


@given(st.lists(st.lists(st.binary(max_size=40), max_size=4), max_size=10))
def test_nothing_that_comes_breaks_the_stream(messages):
    _, events = stream()
    for frames in messages:
        events.take(frames)
    assert events.counters.messages == len(messages)
