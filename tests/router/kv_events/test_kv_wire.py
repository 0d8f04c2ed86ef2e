import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.kv_events.wire import Cleared, MalformedEventsError, Removed, Stored, decode_batch

encode = msgspec.msgpack.encode

STORED = {
    "type": "BlockStored",
    "block_hashes": [-7, b"\x01" * 32],
    "parent_block_hash": None,
    "token_ids": [1, 2, 3, 4],
    "block_size": 2,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": "tuned",
    "extra_keys": [["tuned", "salt"], None],
    "group_idx": 1,
    "kv_cache_spec_kind": "full_attention",
    "kv_cache_spec_sliding_window": None,
    "locality": "LOCAL",
    "something_newer": {"a": 1},
}
REMOVED = {"type": "BlockRemoved", "block_hashes": [5], "medium": "CPU", "group_idx": 0}
CLEARED = {"type": "AllBlocksCleared"}
OLD_STORED = ["BlockStored", [5, 6], 4, [1, 2, 3, 4], 2, None]
OLD_REMOVED = ["BlockRemoved", [5, 6]]


def as_array(event):
    return list(event.values())


@pytest.mark.parametrize("of_event", [dict, as_array], ids=["event map", "event array"])
@pytest.mark.parametrize(
    "of_batch",
    [
        lambda events: [1.5, events],
        lambda events: [1.5, events, 0],
        lambda events: {"ts": 1.5, "events": events},
        lambda events: {"ts": 1.5, "events": events, "data_parallel_rank": 0},
    ],
    ids=["array", "array with rank", "map", "map with rank"],
)
def test_every_encoding_says_the_same(of_event, of_batch):
    batch = of_batch([of_event(event) for event in (STORED, REMOVED, CLEARED)])
    stored, removed, cleared = decode_batch(encode(batch))
    assert isinstance(stored, Stored)
    assert stored.block_hashes == [-7, b"\x01" * 32]
    assert stored.token_ids == [1, 2, 3, 4]
    assert (stored.lora_name, stored.group_idx, stored.locality) == ("tuned", 1, "LOCAL")
    assert stored.extra_keys == [["tuned", "salt"], None]
    assert isinstance(removed, Removed)
    assert (removed.block_hashes, removed.medium) == ([5], "CPU")
    assert isinstance(cleared, Cleared)


def test_fields_at_their_default_may_be_missing():
    small = {key: STORED[key] for key in ("type", "block_hashes", "parent_block_hash")}
    small |= {"token_ids": [1, 2, 3, 4], "block_size": 2}
    events = [OLD_STORED, OLD_REMOVED, small, {"type": "BlockRemoved", "block_hashes": [1]}]
    stored, removed, *_ = decode_batch(encode([0.0, events]))
    assert (stored.parent_block_hash, stored.medium, stored.extra_keys) == (4, None, None)
    assert (removed.block_hashes, removed.medium) == ([5, 6], None)


def test_events_of_other_names_are_left_out():
    events = [{"type": "BlockMigrated", "x": 1}, ["Later", 5], CLEARED]
    assert [type(event) for event in decode_batch(encode([0.0, events]))] == [Cleared]


@pytest.mark.parametrize(
    "batch",
    [
        5,
        [],
        [0.0],
        {"ts": 0.0},
        [0.0, 5],
        [0.0, [5]],
        [0.0, [[]]],
        [0.0, [{}]],
        [0.0, [{"type": "BlockRemoved"}]],
        [0.0, [["BlockRemoved", 5]]],
        [0.0, [{**STORED, "block_size": 3}]],
        [0.0, [{**STORED, "block_size": 0}]],
        [0.0, [{**STORED, "token_ids": [1, 2, 3, -4]}]],
        [0.0, [{**STORED, "token_ids": [1, 2, 3, 2**32]}]],
        [0.0, [{**STORED, "token_ids": [[1, 2], [3, 4]]}]],
    ],
)
def test_malformed_batches(batch):
    with pytest.raises(MalformedEventsError):
        decode_batch(encode(batch))


@given(st.binary(max_size=200))
def test_garbage_is_malformed(garbage):
    try:
        decode_batch(garbage)
    except MalformedEventsError:
        return
    # What is well-formed by chance holds no event of ours.
    assert all(isinstance(event, Removed | Cleared | Stored) for event in decode_batch(garbage))


GOOD = encode([0.0, [STORED, OLD_STORED, REMOVED, CLEARED]])


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_damaged_byte_breaks_nothing(at, byte):
    damaged = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        events = decode_batch(damaged)
    except MalformedEventsError:
        return
    assert len(events) <= 4


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_message_is_malformed(end):
    with pytest.raises(MalformedEventsError):
        decode_batch(GOOD[:end])
