"""The transformations of a trace, and the figures about one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadgen.trace import transform
from loadgen.trace.names import open_trace
from loadgen.trace.request import Trace, TraceRequest
from loadgen.trace.summary import summarise_trace


def trace_of(*arrivals_s, prompt_tokens=600, hash_ids=()):
    return Trace.of(
        "t",
        [
            TraceRequest(
                arrival_s=arrival_s,
                prompt_tokens=prompt_tokens,
                output_tokens=number,
                hash_ids=hash_ids,
            )
            for number, arrival_s in enumerate(arrivals_s)
        ],
    )


def arrivals_of(trace):
    return [request.arrival_s for request in trace.requests]


def numbers_of(trace):
    return [request.output_tokens for request in trace.requests]


def test_window_is_half_open_and_starts_anew():
    cut = transform.window(trace_of(0, 1, 2, 3, 4), 1, 2)
    assert arrivals_of(cut) == [0, 1]
    assert numbers_of(cut) == [1, 2]
    assert cut.changes == ("only arrivals from 1 s to 3 s",)


def test_window_without_duration_runs_to_the_end():
    assert numbers_of(transform.window(trace_of(0, 1, 2), 1)) == [1, 2]


def test_limit_keeps_the_first():
    assert numbers_of(transform.limit(trace_of(0, 1, 2), 2)) == [0, 1]


def test_scale_rate_makes_arrivals_denser():
    assert arrivals_of(transform.scale_rate(trace_of(0, 1, 4), 2)) == [0, 0.5, 2]


def test_clipped_prompts_keep_their_arrival_and_their_leading_blocks():
    clipped = transform.clip_prompts(trace_of(0, 1, hash_ids=(5, 6)), 512)
    assert arrivals_of(clipped) == [0, 1]
    assert {(r.prompt_tokens, r.whole_blocks) for r in clipped.requests} == {(512, (5,))}
    assert clipped.changes == ("2 prompts cut to 512 tokens",)


def test_a_block_that_clipping_makes_partial_is_not_reusable():
    clipped = transform.clip_prompts(trace_of(0, hash_ids=(5, 6)), 100)
    assert [(r.hash_ids, r.whole_blocks) for r in clipped.requests] == [((5,), ())]


def test_clipped_outputs():
    clipped = transform.clip_outputs(trace_of(0, 1, 2, 3), 1)
    assert numbers_of(clipped) == [0, 1, 1, 1]
    assert clipped.changes == ("2 answers cut to 1 tokens",)


class TestJitter:
    def test_volleys_are_spread_within_their_gap_and_stay_in_order(self):
        spread = transform.jitter(trace_of(*[0] * 200, *[3] * 200, 6, 8), seed=1)
        assert numbers_of(spread) == list(range(402))
        first, second = arrivals_of(spread)[:200], arrivals_of(spread)[200:400]
        assert len(set(first)) == 200
        assert 2.9 < max(first) <= 3
        assert min(second) - max(first) > -0.1
        assert sum(1 for a in first if a < 1.5) in range(75, 125)

    def test_the_last_volley_takes_the_gap_before_it(self):
        spread = transform.jitter(trace_of(0, 3, *[5] * 100), seed=1)
        assert 6.8 < spread.duration_s <= 7

    def test_requests_alone_at_their_time_stay(self):
        assert arrivals_of(transform.jitter(trace_of(0, 1, 2.5), seed=1)) == [0, 1, 2.5]

    def test_one_single_volley_has_no_gap_to_be_spread_over(self):
        assert arrivals_of(transform.jitter(trace_of(0, 0, 0), seed=1)) == [0, 0, 0]

    def test_the_same_seed_gives_the_same_times(self):
        trace = open_trace("mooncake-conversation")
        assert transform.jitter(trace, 4) == transform.jitter(trace, 4)
        assert transform.jitter(trace, 4).requests != transform.jitter(trace, 5).requests

    def test_mooncake_loses_its_volleys(self):
        spread = summarise_trace(transform.jitter(open_trace("mooncake-conversation"), 0))
        assert spread.shared_time_share == 0
        assert spread.changes[0].startswith("jitter (seed 0): 602 requests that shared")

    @given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers())
    def test_nothing_is_lost_and_volleys_stay_in_order(self, times_s, seed):
        after = transform.jitter(trace_of(*times_s), seed)
        assert sorted(numbers_of(after)) == list(range(len(times_s)))
        published_s = [times_s[number] for number in numbers_of(after)]
        assert published_s == sorted(times_s)
        assert after.requests[0].arrival_s == 0


def test_summary_counts_only_leading_whole_blocks_as_reusable():
    requests = [
        TraceRequest(arrival_s=0, prompt_tokens=1100, output_tokens=1, hash_ids=(1, 2, 3)),
        TraceRequest(arrival_s=1, prompt_tokens=1600, output_tokens=1, hash_ids=(1, 2, 3, 4)),
        TraceRequest(arrival_s=2, prompt_tokens=1024, output_tokens=1, hash_ids=(9, 2)),
    ]
    summary = summarise_trace(Trace.of("t", requests))
    assert summary.reusable_share == 1024 / (1100 + 1600 + 1024)
    assert (summary.requests, summary.duration_s, summary.rate_rps) == (3, 2, 1.5)


def test_summary_of_a_single_moment_has_no_rate():
    assert summarise_trace(trace_of(0, 0)).rate_rps == 0
