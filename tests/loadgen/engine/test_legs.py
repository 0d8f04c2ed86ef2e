"""Requests split over two engines: what each leg holds, and when it lets go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engine.engine import Engine
from loadgen.engine.profile import load_profile
from loadgen.engine.sequence import EventKind, Leg, Sequence, State

PROFILE = load_profile("8b-h100")
BLOCK = PROFILE.block_tokens


def engine(blocks=1000, **more):
    return Engine(PROFILE, kv_tokens=blocks * BLOCK, **more)


def run_out(eng):
    """Advance from event to event until nothing happens any more."""
    events = []
    while (at := eng.next_event_s()) is not None:
        events += eng.advance(at)
    return events


def kinds(events):
    return [event.kind for event in events]


def test_a_prefill_leg_takes_as_long_as_any_prefill_and_keeps_its_blocks():
    whole, leg = Sequence(1600, 20), Sequence(1600, 1, leg=Leg.PREFILL)
    for sequence in (whole, leg):
        eng = engine()
        eng.submit(sequence, 0.0)
        run_out(eng)
    assert leg.first_token_s == leg.finished_s == whole.first_token_s
    assert list(eng.pinned) == [leg]
    assert eng.kv_blocks_in_use == 100
    eng.let_go(leg, 9.0)
    assert eng.kv_blocks_in_use == 0
    eng.let_go(leg, 9.0)  # twice is once


def test_what_a_prefill_leg_computed_is_found_again():
    eng = engine()
    keys = range(100)
    leg = Sequence(1600, 1, keys, Leg.PREFILL)
    eng.submit(leg, 0.0)
    run_out(eng)
    assert eng.cached_tokens(keys) == 1600
    eng.let_go(leg, 1.0)
    assert eng.cached_tokens(keys) == 1600


def test_a_prefill_leg_of_many_tokens_is_refused():
    with pytest.raises(ValueError, match="one token"):
        Sequence(10, 2, leg=Leg.PREFILL)


def test_pinned_blocks_are_for_nobody_else():
    eng = engine(blocks=150)
    first, second = Sequence(1600, 1, leg=Leg.PREFILL), Sequence(1600, 1, leg=Leg.PREFILL)
    eng.submit(first, 0.0)
    eng.submit(second, 0.0)
    run_out(eng)
    assert (first.state, second.state) == (State.FINISHED, State.WAITING)
    assert eng.next_event_s() is None
    eng.let_go(first, 5.0)
    run_out(eng)
    assert second.state is State.FINISHED
    assert second.admitted_s == 5.0


def test_a_decode_leg_gets_room_at_once_and_begins_when_its_kv_is_there():
    eng = engine()
    leg = Sequence(1600, 20, leg=Leg.DECODE)
    eng.submit(leg, 0.0)
    assert kinds(run_out(eng)) == [EventKind.KV_ROOM]
    assert eng.kv_blocks_in_use == 100
    assert eng.next_event_s() is None
    eng.kv_arrived(leg, 3.0)
    assert kinds(run_out(eng)) == [EventKind.FIRST_TOKEN, EventKind.FINISHED]
    assert 3.0 < leg.first_token_s < 3.03
    assert leg.generated == 20
    assert eng.prefilled_tokens_total == 1
    assert eng.kv_blocks_in_use == 0


def test_streams_go_on_while_kv_is_on_its_way():
    eng, other = engine(), engine()
    stream, alone = Sequence(160, 400), Sequence(160, 400)
    leg = Sequence(1600, 20, leg=Leg.DECODE)
    eng.submit(stream, 0.0)
    other.submit(alone, 0.0)
    eng.advance(0.5)
    eng.submit(leg, 0.5)
    eng.advance(1.0)
    assert leg.state is State.FETCHING
    run_out(eng)
    run_out(other)
    assert stream.finished_s == pytest.approx(alone.finished_s, rel=1e-9)


def test_a_decode_leg_waits_for_room_in_its_turn():
    eng = engine(blocks=150)
    stream = Sequence(1600, 100)
    leg, behind = Sequence(1600, 20, leg=Leg.DECODE), Sequence(32, 1)
    eng.submit(stream, 0.0)
    eng.submit(leg, 0.0)
    eng.submit(behind, 0.0)
    events = run_out(eng)
    room = next(event for event in events if event.kind is EventKind.KV_ROOM)
    assert room.at_s == stream.finished_s
    assert behind.state is State.FINISHED


def test_what_is_cached_need_not_come():
    eng = engine()
    keys = range(100)
    eng.submit(Sequence(1600, 1, keys), 0.0)
    run_out(eng)
    leg = Sequence(1600, 20, keys, Leg.DECODE)
    eng.submit(leg, 1.0)
    run_out(eng)
    assert leg.cached_tokens == 1584


def test_kv_that_came_can_be_found_by_others():
    eng = engine()
    keys = range(100)
    leg = Sequence(1600, 20, keys, Leg.DECODE)
    eng.submit(leg, 0.0)
    run_out(eng)
    assert eng.cached_tokens(keys) == 0
    eng.kv_arrived(leg, 1.0)
    run_out(eng)
    assert eng.cached_tokens(keys) == 1600


def test_a_decode_leg_that_gives_way_computes_its_prompt_itself():
    eng = engine(blocks=120)
    first, leg = Sequence(800, 500), Sequence(800, 500, leg=Leg.DECODE)
    eng.submit(first, 0.0)
    eng.submit(leg, 0.0)
    eng.advance(0.1)
    eng.kv_arrived(leg, 0.1)
    run_out(eng)
    assert leg.preemptions >= 1
    assert leg.state is first.state is State.FINISHED
    assert eng.kv_blocks_in_use == 0


def test_kv_that_nobody_waits_for_is_refused():
    with pytest.raises(ValueError, match="does not wait"):
        engine().kv_arrived(Sequence(10, 10, leg=Leg.DECODE), 0.0)


@pytest.mark.parametrize("when", ["waiting", "fetching", "there", "decode"])
def test_an_aborted_decode_leg_holds_nothing(when):
    eng = engine(blocks=150)
    leg = Sequence(1600, 200, leg=Leg.DECODE)
    if when == "waiting":
        eng.submit(Sequence(1600, 100), 0.0)
        eng.advance(0.0)
    eng.submit(leg, 0.0)
    eng.advance(0.05)
    if when in {"there", "decode"}:
        eng.kv_arrived(leg, 0.05)
    if when == "decode":
        eng.advance(0.2)
        assert leg.state is State.DECODE
    eng.abort(leg, eng.now_s)
    run_out(eng)
    assert leg.state is State.ABORTED
    assert eng.kv_blocks_in_use == 0


legs = st.lists(
    st.tuples(
        st.floats(0, 0.2),
        st.sampled_from(Leg),
        st.integers(1, 300),
        st.integers(1, 60),
        st.integers(0, 2),
        st.none() | st.floats(0, 0.4),
    ),
    min_size=1,
    max_size=20,
)


@given(legs, st.floats(0.001, 0.3))
def test_everything_ends_and_every_block_comes_back(planned, takes_s):
    """Whatever is split, aborted, pinned or on its way, in an engine that is too small for it."""
    eng = engine(blocks=30)
    acts, now = [], 0.0
    for number, (gap_s, leg, prompt, most, family, patience_s) in enumerate(planned):
        now += gap_s
        output = 1 if leg is Leg.PREFILL else most
        keys = [family * 100 + index for index in range((prompt + output) // BLOCK)]
        sequence = Sequence(prompt, output, keys, leg)
        acts.append((now, number, eng.submit, sequence))
        if patience_s is not None:
            acts.append((now + patience_s, number, eng.abort, sequence))
    ended = set()
    while acts or eng.next_event_s() is not None:
        acts.sort(key=lambda act: act[:2])
        times = [eng.next_event_s(), acts[0][0] if acts else None]
        at = min(time for time in times if time is not None)
        if acts and acts[0][0] <= at:
            _, _, act, sequence = acts.pop(0)
            if act != eng.kv_arrived or sequence.state is State.FETCHING:
                act(sequence, at)
        for kind, sequence, when in eng.advance(at):
            if kind is EventKind.KV_ROOM:
                acts.append((when + takes_s, 99, eng.kv_arrived, sequence))
            elif kind is EventKind.FINISHED:
                ended.add(sequence)
                if sequence.leg is Leg.PREFILL:
                    acts.append((when + takes_s, 99, eng.let_go, sequence))
    assert eng.kv_blocks_in_use == 0
    assert not any((eng.running, eng.waiting, eng.fetching, eng.pinned))
    assert all(sequence.generated == sequence.output_tokens for sequence in ended)
