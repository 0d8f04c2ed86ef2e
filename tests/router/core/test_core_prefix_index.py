import tracemalloc
from collections import OrderedDict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.core.prefix_index import BLOCKS_PER_RUN, DEFAULT_KV_TOKENS, PrefixIndex

BLOCK = 256
REPLICAS = ("a", "b", "c")
FOLLOWED = "a"

texts = st.lists(st.integers(0, 2), max_size=9).map(tuple)
replicas = st.sampled_from(REPLICAS)


def chain(text):
    """A key for each beginning of ``text``, the same whenever it comes again."""
    return tuple(hash(text[: end + 1]) for end in range(len(text)))


class NaiveCache:
    """An LRU cache of blocks, as an engine has one: the last block of a prompt goes first."""

    def __init__(self):
        self.capacity_tokens = DEFAULT_KV_TOKENS
        self.used = OrderedDict()
        self.told = set()
        self.running = []

    def shrink(self):
        while len(self.used) * BLOCK > self.capacity_tokens:
            self.drop(next(iter(self.used)))

    def drop(self, held):
        del self.used[held]
        self.told.discard(held)

    def use(self, text, clock, *, told=False):
        for end in range(len(text), 0, -1):
            self.used[text[:end]] = clock
            self.used.move_to_end(text[:end])
            if told:
                self.told.add(text[:end])
        self.shrink()

    def remove(self, text):
        for held in [held for held in self.used if held[: len(text)] == text]:
            self.drop(held)

    def retire(self, clock, now):
        while self.used and self.used[oldest := next(iter(self.used))] < clock:
            if oldest not in self.told:
                self.drop(oldest)
                continue
            for end in range(len(oldest), 0, -1):
                self.used[oldest[:end]] = now
                self.used.move_to_end(oldest[:end])

    def match(self, text):
        depth = 0
        while depth < len(text) and text[: depth + 1] in self.used:
            depth += 1
        return depth


class AgainstNaiveCaches(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.index = PrefixIndex()
        self.naive = {}
        self.index.follow(FOLLOWED)

    def cache(self, replica):
        return self.naive.setdefault(replica, NaiveCache())

    @rule(replica=replicas, text=texts)
    def sent(self, replica, text):
        sent = self.index.sent(replica, chain(text), BLOCK)
        cache = self.cache(replica)
        cache.use(text, self.index.clock)
        if replica == FOLLOWED:
            cache.running.append((sent, text))

    @rule(replica=replicas, text=texts, more=texts)
    def conversation_goes_on(self, replica, text, more):
        self.sent(replica, text)
        self.sent(replica, text + more)

    @rule(number=st.integers(0, 5))
    def ended(self, number):
        running = self.cache(FOLLOWED).running
        if number < len(running):
            sent, text = running.pop(number)
            self.index.ended(FOLLOWED, sent, chain(text), BLOCK)
            self.cache(FOLLOWED).use(text, self.index.clock)

    @rule(replica=replicas, text=texts)
    def of_no_meaning_where_it_is_not_followed(self, replica, text):
        self.index.ended(replica, 0, chain(text), BLOCK)

    @rule(replica=replicas, text=texts)
    def stored(self, replica, text):
        self.index.stored(replica, chain(text), BLOCK)
        self.cache(replica).use(text, self.index.clock, told=True)

    @rule(replica=replicas)
    def doubt(self, replica):
        self.index.doubt(replica)
        self.cache(replica).told.clear()

    @rule(replica=replicas, text=texts.filter(len))
    def removed(self, replica, text):
        self.index.removed(replica, chain(text))
        self.cache(replica).remove(text)

    @rule(replica=replicas, ago=st.integers(-1, 20))
    def retire(self, replica, ago):
        clock = max(0, self.index.clock - ago)
        self.index.retire(replica, clock)
        cache = self.cache(replica)
        now = self.index.clock
        cache.retire(min([clock, now, *(sent for sent, _ in cache.running)]), now)

    @rule(replica=replicas, blocks=st.none() | st.integers(0, 25), spare=st.integers(0, BLOCK - 1))
    def capacity(self, replica, blocks, spare):
        tokens = None if blocks is None else blocks * BLOCK + spare
        self.index.capacity(replica, tokens)
        cache = self.cache(replica)
        cache.capacity_tokens = DEFAULT_KV_TOKENS if tokens is None else tokens
        cache.shrink()

    @rule(replica=replicas)
    def cleared(self, replica):
        self.index.cleared(replica)
        self.cache(replica).used.clear()
        self.cache(replica).told.clear()

    @rule(replica=replicas)
    def forget(self, replica):
        self.index.forget(replica)
        self.naive.pop(replica, None)

    @rule(text=texts)
    def match(self, text):
        expected = {name: cache.match(text) * BLOCK for name, cache in self.naive.items()}
        expected = {name: tokens for name, tokens in expected.items() if tokens}
        assert self.index.match(chain(text), BLOCK) == expected

    @invariant()
    def counts_agree(self):
        for name in REPLICAS:
            held = self.naive[name].used if name in self.naive else ()
            assert self.index.blocks_of(name) == len(held)
        check(self.index)


def check(index):
    """What is remembered twice says the same, and whoever holds a run holds its parent."""
    runs = set(index._heads.values())
    for name, holder in index._holders.items():
        order, lease = [], holder.end.newer
        while lease is not holder.end:
            order.append(lease.run)
            assert holder.leases[lease.run] is lease
            lease = lease.newer
        assert len(order) == len(holder.leases)
        assert set(order) == {run for run in runs if run.mask & holder.bit}
        assert holder.tokens == sum(len(run.keys) * run.block_tokens for run in order)
        assert holder.blocks == sum(len(run.keys) for run in order)
        place = {run: number for number, run in enumerate(order)}
        assert all(run.parent is None or place[run.parent] > place[run] for run in order), name
    for run in runs:
        assert run.mask
        assert len(run.keys)
        assert run.parent is None or (run.parent in runs and run in run.parent.children)
        assert run.children is None or run.children <= runs


TestAgainstNaiveCaches = AgainstNaiveCaches.TestCase
TestAgainstNaiveCaches.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@given(
    max_blocks=st.integers(1, 60),
    prompts=st.lists(st.tuples(replicas, texts, st.sampled_from([16, 256, 300])), max_size=60),
)
@settings(deadline=None)
def test_no_replica_has_more_than_its_share(max_blocks, prompts):
    index = PrefixIndex(max_blocks=max_blocks)
    seen = set()
    for replica, text, block_tokens in prompts:
        seen.add(replica)
        index.sent(replica, chain(text), block_tokens)
        share = max_blocks // len(seen)
        assert all(index.blocks_of(name) <= share for name in seen)
        assert len(index._holders[replica].leases) <= share // BLOCKS_PER_RUN + 1
        check(index)


def test_nothing_is_known_at_first():
    index = PrefixIndex()
    assert index.match((1, 2), BLOCK) == {}
    assert index.match((), BLOCK) == {}
    index.removed("a", (1,))
    index.cleared("a")
    index.forget("a")
    assert index.blocks == 0


def test_each_replica_is_told_with_what_it_has():
    index = PrefixIndex()
    long, short = chain((1, 2, 3, 4)), chain((1, 2, 9))
    index.sent("a", long, BLOCK)
    index.sent("b", short, BLOCK)
    assert index.match(long, BLOCK) == {"a": 4 * BLOCK, "b": 2 * BLOCK}
    assert index.match(long[:1], 100) == {"a": 100, "b": 100}
    index.forget("a")
    assert index.match(long, BLOCK) == {"b": 2 * BLOCK}


def test_a_replica_that_comes_back_is_followed_still_until_it_is_not():
    index = PrefixIndex()
    index.follow("a")
    before = index.sent("a", (1,), BLOCK)
    index.forget("a")
    sent = index.sent("a", (2,), BLOCK)
    index.sent("a", (3,), BLOCK)
    index.ended("a", before, (1,), BLOCK)
    assert index.match((1,), BLOCK) == {}
    index.retire("a", index.clock)
    assert index.match((2,), BLOCK) == {"a": BLOCK}
    index.ended("a", sent, (2,), BLOCK)
    index.unfollow("a")
    index.retire("a", index.clock)
    assert index.match((2,), BLOCK) == {"a": BLOCK}
    assert index.match((3,), BLOCK) == {}


def test_what_a_replica_told_of_outlives_any_time():
    index = PrefixIndex()
    index.sent("a", (1,), BLOCK)
    index.stored("a", (2,), BLOCK)
    index.sent("a", (3,), BLOCK)
    index.retire("a", 10**9)
    assert index.match((1,), BLOCK) == {}
    assert index.match((2,), BLOCK) == index.match((3,), BLOCK) == {"a": BLOCK}


def test_a_replica_that_joins_gets_the_place_of_one_that_left():
    index = PrefixIndex()
    for number in range(200):
        index.sent(f"r{number}", (1,), BLOCK)
        index.forget(f"r{number - 1}")
    assert index.match((1,), BLOCK) == {"r199": BLOCK}
    assert max(index._names) <= 2


def test_a_prompt_larger_than_the_cache_keeps_its_beginning():
    index = PrefixIndex()
    index.capacity("a", 3 * BLOCK)
    index.sent("a", chain((1, 1, 1, 1, 1)), BLOCK)
    assert index.match(chain((1, 1, 1, 1, 1)), BLOCK) == {"a": 3 * BLOCK}


def test_capacity_counts_tokens_whatever_the_size_of_blocks():
    index = PrefixIndex()
    index.capacity("a", 1000)
    index.sent("a", (1, 2), 100)
    index.sent("a", (3, 4), 300)
    assert index.blocks_of("a") == 4
    index.sent("a", (5,), 250)
    assert index.match((1, 2), 100) == {"a": 100}
    assert index.match((3, 4), 300) == {"a": 600}


@pytest.mark.parametrize("block_tokens", [0, -1])
def test_a_block_without_tokens_is_refused(block_tokens):
    with pytest.raises(ValueError, match="a block of"):
        PrefixIndex().sent("a", (1,), block_tokens)


@pytest.mark.parametrize(("prompts", "blocks"), [(400, 64), (20_000, 1)])
def test_memory_is_told_as_it_is(prompts, blocks):
    rng = Random(1)
    tracemalloc.start()
    try:
        index = PrefixIndex(max_blocks=8 * prompts * blocks)
        index.capacity("a", 2**40)
        for _ in range(prompts):
            index.sent("a", tuple(rng.getrandbits(64) for _ in range(blocks)), BLOCK)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert index.blocks == prompts * blocks
    assert 0.7 < index.bytes / taken < 1.5
