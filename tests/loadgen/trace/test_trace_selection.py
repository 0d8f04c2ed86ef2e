"""Which requests of which trace."""

from __future__ import annotations

import pytest

from loadgen.trace.errors import TraceError
from loadgen.trace.names import open_trace
from loadgen.trace.selection import Selection


def test_a_selection_says_what_was_done_to_its_trace():
    trace = Selection(
        spec="mooncake-conversation",
        jitter=True,
        seed=1,
        start_s=30,
        duration_s=30,
        max_input_tokens=4000,
        max_output_tokens=100,
        rate_scale=2,
    ).open()
    assert trace.duration_s < 15
    assert max(request.prompt_tokens for request in trace.requests) == 4000
    assert max(request.output_tokens for request in trace.requests) == 100
    kinds = [change.split()[0] for change in trace.changes]
    assert kinds == ["jitter", "only", *(change.split()[0] for change in trace.changes[2:])]
    assert trace.changes[-1] == "arrivals 2 times as fast"


def test_what_changes_nothing_is_not_told_of():
    changed = Selection(
        spec="azure-code",
        jitter=True,
        duration_s=1e6,
        max_input_tokens=10**6,
        max_output_tokens=10**6,
    )
    assert changed.open() == Selection(spec="azure-code").open()


def test_a_selection_left_alone_is_the_trace_as_published():
    assert Selection(spec="azure-code").open().changes == ()


def test_a_selection_without_requests_is_a_mistake():
    with pytest.raises(TraceError, match="bimodal: no request arrives"):
        Selection(spec="bimodal", start_s=1e6).open()


def test_the_seed_draws_another_trace_of_the_same_name():
    first, other = (Selection(spec="bimodal:n=9,seed=4", seed=seed).open() for seed in (0, 1))
    assert first.name == other.name == "bimodal:n=9,seed=4"
    assert first.requests == open_trace("bimodal:n=9,seed=4").requests
    assert other.requests == open_trace("bimodal:n=9,seed=5").requests


def test_only_the_first_are_taken():
    trace = Selection(spec="azure-code", limit=7).open()
    assert len(trace.requests) == 7
    assert trace.changes == ("only the first 7 requests",)
