from collections import OrderedDict, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.api.prefix import BLOCK_IDS, id_keys, root
from router.core.prefix_index import PrefixIndex
from router.kv_events import tracker as tracker_module
from router.kv_events.tracker import Tracker
from router.kv_events.wire import Cleared, Removed, Stored

MODEL = "base"
PIECE = 128


class Engine:
    """A prefix cache of full blocks that tells of itself, as vLLM's does.

    A block is evicted in the order in which the last request that read it ended, the end of a
    prompt first; what a request reads that has not ended is not evicted at all.
    """

    def __init__(self, block_size, blocks):
        self.block_size = block_size
        self.capacity = blocks
        self.cached = OrderedDict()
        self.running = []
        self.events = []

    def _hashes(self, ids):
        size = self.block_size
        ends = range(size, len(ids) + 1, size)
        return [hash((tuple(ids[:end]), "engine")) for end in ends]

    def prefill(self, ids):
        hashes = self._hashes(ids)
        self.running.append(hashes)
        known = 0
        while known < len(hashes) and hashes[known] in self.cached:
            known += 1
        self._evict(len(hashes) - known)
        new = hashes[known:]
        for block_hash in hashes:
            self.cached[block_hash] = None
        if new:
            self.events.append(
                Stored(
                    block_hashes=new,
                    parent_block_hash=hashes[known - 1] if known else None,
                    token_ids=ids[known * self.block_size : len(hashes) * self.block_size],
                    block_size=self.block_size,
                )
            )

    def end(self, number):
        hashes = self.running.pop(number)
        for block_hash in reversed(hashes):
            self.cached.move_to_end(block_hash)

    def _evict(self, wanted):
        in_use = {block_hash for hashes in self.running for block_hash in hashes}
        for block_hash in [each for each in self.cached if each not in in_use]:
            if len(self.cached) + wanted <= self.capacity:
                break
            del self.cached[block_hash]
            self.events.append(Removed(block_hashes=[block_hash]))

    def clear(self):
        self.cached.clear()
        self.running.clear()
        self.events.append(Cleared())

    def holds(self, ids):
        """Tokens of a prompt that it would not compute again."""
        known = 0
        for block_hash in self._hashes(ids):
            if block_hash not in self.cached:
                break
            known += self.block_size
        return known

    def told(self):
        events, self.events = self.events, []
        return events


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=9).map(
    lambda pieces: [number for piece in pieces for number in range(piece, piece + PIECE)]
)
"""Prompts of pieces, so that they part in the middle of our blocks, too."""


class FollowsAnEngine(RuleBasedStateMachine):
    @initialize(block_size=st.sampled_from([16, 64, 128, 256]), units=st.integers(1, 12))
    def start(self, block_size, units):
        self.index = PrefixIndex()
        self.engine = Engine(block_size, units * 512 // block_size)
        self.tracker = Tracker(self.index, "a", lambda adapter: adapter or MODEL)
        self.sent = []
        self.seen = {}

    def keys(self, ids):
        # One id more than in the engine: it computes the last one again in any case.
        return id_keys([*ids, 0], root(None, MODEL))

    @rule(ids=prompts)
    def request_by_us(self, ids):
        clock = self.index.sent("a", self.keys(ids), BLOCK_IDS)
        self.engine.prefill(ids)
        self.sent.append((clock, ids))
        self.seen[tuple(ids)] = ids
        self.tracker.take(self.engine.told())

    @rule(ids=prompts)
    def request_by_another_router(self, ids):
        self.engine.prefill(ids)
        self.engine.end(len(self.engine.running) - 1)
        self.seen[tuple(ids)] = ids
        self.tracker.take(self.engine.told())

    @rule(number=st.integers(0, 3))
    def request_ends(self, number):
        if number < len(self.sent):
            clock, ids = self.sent.pop(number)
            self.engine.end(number)
            self.index.ended("a", clock, self.keys(ids), BLOCK_IDS)

    @rule()
    def cache_is_cleared(self):
        for clock, _ in self.sent:
            self.index.ended("a", clock, (), BLOCK_IDS)
        self.sent.clear()
        self.engine.clear()
        self.tracker.take(self.engine.told())

    @invariant()
    def what_is_believed_is_so(self):
        running = {tuple(ids) for _, ids in self.sent}
        for ids in self.seen.values():
            held = self.engine.holds(ids) // BLOCK_IDS * BLOCK_IDS
            believed = self.index.match(self.keys(ids), BLOCK_IDS).get("a", 0)
            if tuple(ids) in running:
                assert believed >= held
            else:
                assert believed == held


TestFollowsAnEngine = FollowsAnEngine.TestCase
TestFollowsAnEngine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class Recorder:
    """A prefix index that writes down what it is told."""

    def __init__(self):
        self.clock = 0
        self.calls = []

    def __getattr__(self, name):
        return lambda *args: self.calls.append((name, *args[1:]))


def stored(ids, *, first=0, parent=None, size=16, **fields):
    hashes = list(range(first, first + len(ids) // size))
    return Stored(
        block_hashes=hashes, parent_block_hash=parent, token_ids=ids, block_size=size, **fields
    )


def followed(*events, model=MODEL):
    """What the index is told of these events, beside retirements."""
    index = Recorder()
    Tracker(index, "a", lambda adapter: adapter or model).take(events)
    return [call for call in index.calls if call[0] in {"stored", "removed", "cleared"}]


IDS = list(range(600))


def keys_of(model, salt=b"", ids=IDS):
    return id_keys(ids, root(None, model, salt))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, keys_of(MODEL)),
        ({"lora_name": "tuned"}, keys_of("tuned")),
        ({"lora_name": "tuned", "extra_keys": [["tuned"]] * 37}, keys_of("tuned")),
        ({"extra_keys": [["pepper"], *[None] * 36]}, keys_of(MODEL, b'"pepper"')),
        ({"medium": "GPU", "locality": "LOCAL"}, keys_of(MODEL)),
        ({"group_idx": 3, "kv_cache_spec_kind": "full_attention"}, keys_of(MODEL)),
        ({"group_idx": 3, "kv_cache_spec_kind": "mla_attention"}, keys_of(MODEL)),
    ],
)
def test_prompts_of_token_ids_have_the_keys_of_requests(fields, expected):
    assert followed(stored(IDS[:592], **fields)) == [("stored", expected, BLOCK_IDS)]


@pytest.mark.parametrize(
    "fields",
    [
        {"medium": "CPU"},
        {"locality": "REMOTE"},
        {"kv_cache_spec_kind": "sliding_window"},
        {"kv_cache_spec_kind": "mamba"},
        {"extra_keys": [None, ["an image"], *[None] * 35]},
        {"extra_keys": [["pepper", "an image"], *[None] * 36]},
        {"extra_keys": [[["an image", 5]], *[None] * 36]},
        {"parent": 9999},
    ],
)
def test_what_cannot_be_told_apart_is_not_claimed(fields):
    assert followed(stored(IDS[:592], **fields)) == []


def test_images_end_what_is_known_of_a_prompt():
    begin = stored(IDS[:320])
    image = stored(IDS[320:592], first=100, parent=19, extra_keys=[["an image"]] * 17)
    after = stored(IDS[:256], first=200, parent=116)
    assert followed(begin, image, after) == [("stored", keys_of(MODEL)[:1], BLOCK_IDS)]


@pytest.mark.parametrize("size", [1, 24, 48, 512])
def test_blocks_that_do_not_fit_ours_are_not_followed(size):
    ids = IDS[: len(IDS) // size * size]
    assert followed(stored(ids, size=size)) == []


def test_a_block_that_is_there_twice_is_gone_when_both_are():
    twice = [stored(IDS[:256]), stored(IDS[:256])]
    gone = Removed(block_hashes=[15])
    assert ("removed", keys_of(MODEL)[:1]) not in followed(*twice, gone)
    assert ("removed", keys_of(MODEL)[:1]) in followed(*twice, gone, gone)


def test_a_prompt_is_dropped_in_one_go():
    everything = Removed(block_hashes=list(reversed(range(37))))
    assert followed(stored(IDS[:592]), everything)[1:] == [("removed", keys_of(MODEL)[:1])]


def test_removals_elsewhere_say_nothing():
    assert followed(stored(IDS[:256]), Removed(block_hashes=[15], medium="CPU"))[1:] == []
    assert followed(Removed(block_hashes=[15])) == []


def test_evictions_tell_how_far_back_the_cache_reaches_for_text():
    index = PrefixIndex()
    tracker = Tracker(index, "a", lambda _: MODEL)
    answers = deque()
    for number in range(4):
        answers.append((index.sent("a", (number,), 256), (number,)))
        tracker.take([stored(IDS[:16], first=number)])
    assert index.blocks_of("a") == 4
    tracker.take([Removed(block_hashes=[2])])
    assert index.blocks_of("a") == 4, "all of them are being read"
    for sent, keys in list(answers)[:3]:
        index.ended("a", sent, keys, 256)
    tracker.take([stored(IDS[:16], first=7)])
    tracker.take([Removed(block_hashes=[7])])
    assert [bool(index.match((n,), 256)) for n in range(4)] == [True, True, True, True]
    index.ended("a", *answers[3], 256)
    late = index.sent("a", (9,), 256)
    tracker.take([stored(IDS[:16], first=8), Removed(block_hashes=[8])])
    assert [bool(index.match((n,), 256)) for n in (0, 1, 2, 3, 9)] == [False] * 4 + [True]
    index.ended("a", late, (9,), 256)


def test_lost_events_leave_belief():
    index = PrefixIndex()
    tracker = Tracker(index, "a", lambda _: MODEL)
    tracker.take([stored(IDS[:256])])
    tracker.lost()
    assert tracker.blocks == 0
    assert index.match(keys_of(MODEL), BLOCK_IDS) == {"a": BLOCK_IDS}
    tracker.take([Removed(block_hashes=[15])])
    assert index.match(keys_of(MODEL), BLOCK_IDS) == {"a": BLOCK_IDS}
    tracker.take([Cleared()])
    assert index.match(keys_of(MODEL), BLOCK_IDS) == {}


def test_memory_is_bounded_when_evictions_are_missed(monkeypatch):
    monkeypatch.setattr(tracker_module, "MAX_BLOCKS", 100)
    tracker = Tracker(PrefixIndex(), "a", lambda _: MODEL)
    for number in range(20):
        tracker.take([stored(IDS[:592], first=number * 100)])
        assert tracker.blocks <= 100
