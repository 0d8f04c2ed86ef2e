"""The engine against a naive one, and its promises one by one."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_engine import NaiveEngine, Request

from loadgen.engine.engine import Engine
from loadgen.engine.profile import load_profile
from loadgen.engine.sequence import EventKind, Sequence, State

PROFILE = load_profile("8b-h100")
BLOCK = PROFILE.block_tokens


def engine(blocks=1000, budget=8192, seats=1024, **more):
    return Engine(
        PROFILE,
        kv_tokens=blocks * BLOCK,
        max_batched_tokens=budget,
        max_sequences=seats,
        **more,
    )


def run_out(eng):
    """Advance from event to event until nothing is left."""
    events = []
    while (at := eng.next_event_s()) is not None:
        events += eng.advance(at)
    return events


def assert_empty(eng):
    assert not eng.running
    assert not eng.waiting
    assert eng.kv_blocks_in_use == 0
    assert eng.kv_occupancy == 0.0


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 0.3),  # gap to the one before
        st.integers(1, 200),  # prompt
        st.integers(1, 60),  # output
        st.integers(0, 3),  # family: which prefix
        st.integers(0, 12),  # how many leading blocks it shares with its family
        st.none() | st.floats(0, 0.5),  # aborted after this time
    ),
    min_size=1,
    max_size=25,
)


def script(requests):
    """The times of all submissions and aborts, and the requests as both engines want them."""
    acts, now = [], 0.0
    for number, (gap, prompt, output, family, shared, patience) in enumerate(requests):
        now += gap
        keys = [
            family * 100 + index if index < shared else (number + 1) * 10_000 + index
            for index in range((prompt + output) // BLOCK)
        ]
        pair = (Request(number, prompt, output, keys), Sequence(prompt, output, keys))
        acts.append((now, 0, number, "submit", pair))
        if patience is not None:
            acts.append((now + patience, 1, number, "abort", pair))
    return sorted(acts, key=lambda act: act[:3])


def look(eng):
    return (
        [s.prompt_tokens for s in eng.running],
        [s.prompt_tokens for s in eng.waiting],
        eng.kv_blocks_in_use,
        eng.preemptions_total,
        eng.prefix_queries_total,
        eng.prefix_hits_total,
        [eng.generated(s) for s in eng.running],
    )


def look_naively(naive):
    return (
        [r.prompt for r in naive.running],
        [r.prompt for r in naive.waiting],
        sum(1 for users in naive.users if users),
        naive.preemptions,
        naive.queries,
        naive.hits,
        [r.generated for r in naive.running],
    )


@settings(deadline=None, max_examples=150)
@given(
    requests=REQUESTS,
    blocks=st.integers(17, 60),
    budget=st.integers(8, 150),
    seats=st.integers(1, 12),
    looks=st.lists(st.floats(0, 0.1), max_size=20),
)
def test_whole_runs_equal_single_steps_of_a_naive_engine(requests, blocks, budget, seats, looks):
    eng = engine(blocks, budget, seats)
    naive = NaiveEngine(PROFILE, blocks, budget, min(seats, budget))
    numbers, log = {}, []

    def note(events):
        log.extend((e.kind.value, numbers[e.sequence], e.at_s) for e in events)

    extra_looks = iter(looks)
    for at, _, number, act, (request, sequence) in script(requests):
        numbers[sequence] = number
        now = max(at, eng.now_s)
        for between in extra_looks:
            now = eng.now_s + between
            note(eng.advance(now))
            naive.advance(now)
            assert look(eng) == look_naively(naive)
            if now >= at:
                break
        now = max(at, now)
        getattr(eng, act)(sequence, now)
        getattr(naive, act)(request, now)
        assert look(eng) == look_naively(naive)
    note(run_out(eng))
    naive.advance(math.inf)
    assert [entry[:2] for entry in log] == [entry[:2] for entry in naive.log]
    assert [e[2] for e in log] == pytest.approx([e[2] for e in naive.log], rel=1e-9)
    assert look(eng) == look_naively(naive)
    assert_empty(eng)
    assert eng._cache.pool.available == len(naive.free) == blocks


@settings(deadline=None, max_examples=60)
@given(
    requests=REQUESTS,
    blocks=st.integers(40, 120),
    budget=st.integers(30, 200),
    unit=st.integers(1, 8),
)
def test_nothing_is_lost_and_blocks_are_conserved_with_keys_for_many_blocks(
    requests, blocks, budget, unit
):
    eng = engine(blocks, budget, key_tokens=unit * BLOCK)
    sequences, finished = [], []
    for at, _, _, act, (_, sequence) in script(requests):
        if act == "submit":
            sequences.append(sequence)
        getattr(eng, act)(sequence, max(at, eng.now_s))
        pool = eng._cache.pool
        assert min(pool.free, pool.kept, pool.in_use) >= 0
        assert pool.kept == sum(u.blocks for u in pool._kept)
        assert all(not u.holders and u.blocks for u in pool._kept)
        live = {*pool._kept, *(u for s in eng.running for u in s.units)}
        findable = {*pool._found_by.values(), *(u for t in pool._twins.values() for u in t)}
        assert findable <= live, "nobody finds a unit whose blocks were given away"
    finished += [e.sequence for e in run_out(eng) if e.kind is EventKind.FINISHED]
    assert_empty(eng)
    for sequence in sequences:
        assert sequence.state in {State.FINISHED, State.ABORTED}
        if sequence.state is State.FINISHED:
            assert sequence.generated == sequence.output_tokens
            assert sequence.arrival_s <= sequence.admitted_s < sequence.first_token_s
            assert sequence.first_token_s <= sequence.finished_s
            assert 0 <= sequence.cached_tokens < sequence.prompt_tokens


def test_a_long_prompt_is_computed_in_chunks_and_its_last_chunk_yields_the_first_token():
    eng = engine(budget=100)
    sequence = Sequence(250, 3)
    eng.submit(sequence, 0.0)
    step = eng.next_step_s()
    assert eng.advance(step) == []
    assert sequence.state is State.PREFILL
    assert sequence.computed_tokens == 100
    assert [e.kind for e in run_out(eng)] == [EventKind.FIRST_TOKEN, EventKind.FINISHED]
    assert eng.prefilled_tokens_total == 250
    assert eng.generated_tokens_total == 3
    assert eng.steps_total == 5


def test_an_answer_of_one_token_ends_with_its_prefill():
    eng = engine()
    sequence = Sequence(10, 1)
    eng.submit(sequence, 5.0)
    assert [e.kind for e in run_out(eng)] == [EventKind.FIRST_TOKEN, EventKind.FINISHED]
    assert sequence.first_token_s == sequence.finished_s > 5.0
    assert_empty(eng)


def test_running_sequences_come_before_waiting_ones():
    eng = engine(budget=64)
    decoding, long, late = Sequence(16, 50), Sequence(200, 5), Sequence(60, 5)
    eng.submit(decoding, 0.0)
    eng.advance(eng.next_step_s())
    eng.submit(long, eng.now_s)
    eng.submit(late, eng.now_s)
    eng.advance(eng.next_step_s())
    assert long.computed_tokens == 63, "the decode took one token of the budget"
    assert late.state is State.WAITING
    run_out(eng)
    assert long.first_token_s < late.first_token_s


def test_the_newest_gives_way_when_blocks_run_out_and_goes_to_the_front():
    eng = engine(blocks=8, seats=3)
    old, new, queued = Sequence(48, 40), Sequence(48, 30), Sequence(48, 5)
    for sequence in (old, new, queued):
        eng.submit(sequence, 0.0)
    while not eng.preemptions_total:
        eng.advance(eng.next_event_s())
    assert list(eng.running) == [old]
    assert list(eng.waiting) == [new, queued]
    assert new.preemptions == 1
    generated = eng.generated(new)
    run_out(eng)
    assert new.generated == new.output_tokens > generated
    assert queued.admitted_s > new.admitted_s
    assert_empty(eng)


def test_what_was_computed_is_found_again_but_for_the_last_block():
    eng = engine()
    keys = [1, 2, 3, 4]
    first, again, longer = (
        Sequence(64, 2, keys),
        Sequence(64, 2, keys),
        Sequence(100, 2, [*keys, 5]),
    )
    for sequence in (first, again, longer):
        eng.submit(sequence, eng.now_s)
        run_out(eng)
    assert [s.cached_tokens for s in (first, again, longer)] == [0, 48, 64]
    assert (eng.prefix_hits_total, eng.prefix_queries_total) == (112, 228)


def test_a_full_hit_on_keys_of_many_blocks_also_computes_the_last_block_again():
    eng = engine(key_tokens=64)
    for _ in range(2):
        last = Sequence(128, 2, [1, 2])
        eng.submit(last, eng.now_s)
        run_out(eng)
    assert last.cached_tokens == 112


def test_the_prefix_cache_forgets_the_ends_of_the_oldest_first():
    eng = engine(blocks=8)
    for family in (10, 20):
        eng.submit(Sequence(64, 1, [family + i for i in range(4)]), eng.now_s)
        run_out(eng)
    eng.submit(Sequence(32, 1, [30, 31]), eng.now_s)
    run_out(eng)
    kept = [eng._cache.pool.find([family + i for i in range(4)], 4) for family in (10, 20)]
    assert [len(units) for units in kept] == [2, 4]


def test_what_is_longer_than_the_whole_cache_is_refused():
    with pytest.raises(ValueError, match="can never fit into 128 tokens"):
        engine(blocks=8).submit(Sequence(128, 1), 0.0)


def test_a_unit_that_lost_blocks_is_completed_by_the_next_who_needs_it():
    eng = engine(blocks=10, key_tokens=64)
    eng.submit(Sequence(128, 1, [1, 2]), 0.0)
    run_out(eng)
    eng.submit(Sequence(64, 1, [9]), eng.now_s)  # takes the 2 free blocks and 2 of key 2
    run_out(eng)
    again = Sequence(144, 1, [1, 2])
    eng.submit(again, eng.now_s)
    run_out(eng)
    assert again.cached_tokens == 96
    once_more = Sequence(144, 1, [1, 2])
    eng.submit(once_more, eng.now_s)
    run_out(eng)
    assert once_more.cached_tokens == 128


def test_the_answer_is_found_by_the_next_turn():
    eng = engine()
    eng.submit(Sequence(32, 33, [1, 2, 3, 4]), 0.0)
    run_out(eng)
    turn = Sequence(80, 1, [1, 2, 3, 4, 5])
    eng.submit(turn, eng.now_s)
    run_out(eng)
    assert turn.cached_tokens == 64


def test_decode_alone_is_one_run_however_long():
    eng = engine(blocks=5000)
    for _ in range(20):
        eng.submit(Sequence(100, 1000), 0.0)
    eng.advance(eng.next_event_s())
    started = eng.now_s
    assert {e.kind for e in eng.advance(eng.next_event_s())} == {EventKind.FINISHED}
    assert eng.steps_total == 1000
    cost = eng._cost
    single = sum(cost.base_s(20, 20) + cost.context_s * 20 * (100 + step) for step in range(999))
    assert eng.now_s - started == pytest.approx(single)


def test_blocks_in_use_grow_in_the_middle_of_a_run():
    eng = engine()
    sequence = Sequence(16, 100)
    eng.submit(sequence, 0.0)
    seen = set()
    while (at := eng.next_step_s()) is not None:
        eng.advance(at)
        seen.add(eng.kv_blocks_in_use)
    assert seen == {*range(9)}


def test_an_abort_frees_the_blocks_at_once_and_shortens_the_steps_of_the_others():
    eng = engine()
    stays, goes = Sequence(1000, 500), Sequence(5000, 500)
    eng.submit(stays, 0.0)
    eng.submit(goes, 0.0)
    eng.advance(1.0)
    before = eng.kv_blocks_in_use
    eng.abort(goes, 1.0)
    assert goes.state is State.ABORTED
    assert before - eng.kv_blocks_in_use >= 5000 // BLOCK
    eng.abort(goes, 1.0)  # a second time changes nothing
    run_out(eng)
    alone = engine()
    alone.submit(Sequence(1000, 500), 0.0)
    both = engine()
    both.submit(Sequence(1000, 500), 0.0)
    both.submit(Sequence(5000, 500), 0.0)
    run_out(alone)
    run_out(both)
    assert alone.now_s < eng.now_s < both.now_s


def test_a_slowdown_stretches_every_step_from_the_next_one_on():
    plain, slow = engine(), engine()
    for eng in (plain, slow):
        eng.submit(Sequence(100, 101), 0.0)
    slow.set_slowdown(3.0, 0.0)
    for eng in (plain, slow):
        run_out(eng)
    assert slow.now_s == pytest.approx(3 * plain.now_s)
    halfway = engine()
    halfway.submit(Sequence(100, 101), 0.0)
    halfway.set_slowdown(3.0, plain.now_s / 2)
    run_out(halfway)
    assert halfway.now_s == pytest.approx(2 * plain.now_s, rel=0.05)
    with pytest.raises(ValueError, match="above 0"):
        halfway.set_slowdown(0.0, halfway.now_s)


def test_a_pause_shifts_everything_by_its_length():
    plain, paused = engine(), engine()
    for eng in (plain, paused):
        eng.submit(Sequence(100, 50), 0.0)
    assert len(paused.advance(0.1)) == 1
    paused.pause(0.1)
    assert paused.next_event_s() is None
    assert paused.advance(5.0) == []
    paused.resume(7.1)
    for eng in (plain, paused):
        run_out(eng)
    assert paused.now_s == pytest.approx(plain.now_s + 7.0)


def test_what_arrives_as_a_step_begins_is_in_it():
    eng = engine()
    sequences = [Sequence(10, 1) for _ in range(3)]
    for sequence in sequences:
        eng.submit(sequence, 1.0)
    run_out(eng)
    assert {s.finished_s for s in sequences} == {sequences[0].finished_s}
    assert eng.steps_total == 1


def test_seats_never_exceed_the_token_budget():
    assert engine(budget=10, seats=1000).max_sequences == 10


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="not a sequence"):
        Sequence(0, 5)
    with pytest.raises(ValueError, match="whole blocks"):
        engine(key_tokens=17)
    with pytest.raises(ValueError, match="no block"):
        Engine(PROFILE, kv_tokens=3)
    eng = engine()
    sequence = Sequence(1, 1)
    eng.submit(sequence, 0.0)
    with pytest.raises(ValueError, match="before"):
        eng.submit(sequence, 0.0)
