"""Traces by name: shipped cuts, the generator, files."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from loadgen.trace.errors import TraceError
from loadgen.trace.names import SHIPPED, open_trace
from loadgen.trace.summary import summarise_trace


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_cuts_are_there_and_start_at_zero(name):
    trace = open_trace(name)
    assert trace.name == name
    assert 300 <= len(trace.requests) <= 700
    assert trace.requests[0].arrival_s == 0


def test_the_mooncake_cut_shares_prefixes_and_comes_in_volleys():
    summary = summarise_trace(open_trace("mooncake-conversation"))
    assert summary.reusable_share == pytest.approx(0.213, abs=0.001)
    assert summary.shared_time_share == 1.0


def test_bimodal_has_the_shape_that_it_promises():
    requests = open_trace("bimodal:rate=5,n=20000,seed=3").requests
    gaps_s = [b.arrival_s - a.arrival_s for a, b in pairwise(requests)]
    mean_gap_s = statistics.mean(gaps_s)
    assert mean_gap_s == pytest.approx(1 / 5, rel=0.05)
    assert statistics.stdev(gaps_s) / mean_gap_s == pytest.approx(2, rel=0.05)
    assert {request.prompt_tokens for request in requests} == {4096, 32768}
    long = sum(request.prompt_tokens == 32768 for request in requests)
    assert long / len(requests) == pytest.approx(0.1, abs=0.01)
    outputs = [request.output_tokens for request in requests]
    assert statistics.mean(outputs) == pytest.approx(200, rel=0.03)
    assert statistics.median(outputs) == pytest.approx(200 * 0.693, rel=0.04)


def test_bimodal_has_outliers_where_they_are_asked_for():
    usual = open_trace("bimodal:n=5000,seed=3").requests
    requests = open_trace("bimodal:n=5000,seed=3,outlier_share=0.02").requests
    outliers = [r for r in requests if r.prompt_tokens == 128_000]
    assert 0.015 < len(outliers) / len(requests) < 0.025
    assert [r.arrival_s for r in requests] == [r.arrival_s for r in usual]
    long = [r.prompt_tokens == 32_768 for r in usual]
    assert [r.prompt_tokens == 32_768 for r in requests] == long


def test_bimodal_is_the_same_for_the_same_seed_only():
    assert open_trace("bimodal:n=50") == open_trace("bimodal:n=50")
    once, again = open_trace("bimodal:n=50,seed=1"), open_trace("bimodal:n=50,seed=2")
    assert once.requests != again.requests


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("azure-cod", "azure-cod: no such file, and no trace has that name (azure-code, "),
        ("bimodal:rate", "bimodal:rate: 'rate' is no new key=value"),
        ("bimodal:n=1,n=2", "bimodal:n=1,n=2: 'n=2' is no new key=value"),
        ("bimodal:rate=0", "bimodal:rate=0: Expected `float` > 0.0 - at `$.rate`"),
        ("bimodal:rate=nan", "bimodal:rate=nan: Expected `float` > 0.0"),
        ("bimodal:n=2.5", "bimodal:n=2.5: Expected `int`"),
        ("bimodal:cvv=2", "bimodal:cvv=2: Object contains unknown field `cvv` (known: rate, n, "),
    ],
)
def test_what_is_no_trace_is_refused(spec, complaint):
    with pytest.raises(TraceError) as caught:
        open_trace(spec)
    assert str(caught.value).startswith(complaint)


def test_a_file_called_like_a_generator_needs_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bimodal").write_text('{"arrival_s": 1, "prompt_tokens": 7, "output_tokens": 1}\n')
    assert [r.prompt_tokens for r in open_trace("./bimodal").requests] == [7]
