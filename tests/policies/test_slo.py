"""Objectives: how they are written and when they are met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.slo import Slo, SloError, parse_slo


def test_units_are_read():
    assert parse_slo("ttft=2s,tpot=60ms") == Slo(ttft_s=2, tpot_s=0.06)
    assert parse_slo("e2e=1500us") == Slo(e2e_s=0.0015)


def test_the_ttft_limit_may_grow_with_the_prompt():
    slo = parse_slo("ttft=2s+0.25ms@4096")
    assert slo.ttft_limit_s(4096) == 2
    assert slo.ttft_limit_s(8096) == pytest.approx(3)
    assert slo.met(prompt_tokens=8096, ttft_s=2.9, tpot_s=1, e2e_s=99)
    assert not slo.met(prompt_tokens=8096, ttft_s=3.1, tpot_s=1, e2e_s=99)


def test_every_limit_must_be_kept():
    slo = parse_slo("ttft=1s,tpot=50ms,e2e=10s")
    assert slo.met(prompt_tokens=1, ttft_s=1, tpot_s=0.05, e2e_s=10)
    assert slo.met(prompt_tokens=1, ttft_s=1, tpot_s=None, e2e_s=10)
    assert not slo.met(prompt_tokens=1, ttft_s=1.01, tpot_s=0.05, e2e_s=10)
    assert not slo.met(prompt_tokens=1, ttft_s=1, tpot_s=0.051, e2e_s=10)
    assert not slo.met(prompt_tokens=1, ttft_s=1, tpot_s=0.05, e2e_s=10.1)


def test_short_prompts_and_prompts_without_a_limit():
    slo = parse_slo("ttft=2s+0.25ms@4096")
    assert slo.ttft_limit_s(0) == 2
    assert parse_slo("tpot=60ms").ttft_limit_s(10**6) is None
    assert Slo().met(prompt_tokens=1, ttft_s=9e9, tpot_s=9e9, e2e_s=9e9)


def test_spaces_around_the_parts_are_read_over():
    assert parse_slo(" ttft=2s , tpot=60ms ") == parse_slo("ttft=2s,tpot=60ms")


times = st.sampled_from(["250us", "1ms", "60ms", "999ms", "1s", "2s", "90s"])


@given(ttft=times, extra=times, free=st.integers(0, 10**6), tpot=times, e2e=times)
def test_any_objective_survives_being_printed(ttft, extra, free, tpot, e2e):
    slo = parse_slo(f"ttft={ttft}+{extra}@{free},tpot={tpot},e2e={e2e}")
    assert parse_slo(str(slo)) == slo


@given(prompts=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
def test_a_longer_prompt_never_has_less_time(prompts):
    slo = parse_slo("ttft=2s+0.25ms@4096")
    shorter, longer = map(slo.ttft_limit_s, sorted(prompts))
    assert shorter <= longer


@pytest.mark.parametrize("text", ["ttft=2s,tpot=60ms", "ttft=2s+0.25ms@4096", "ttft=500ms,e2e=30s"])
def test_what_is_printed_can_be_read(text):
    assert str(parse_slo(text)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no objective"),
        ("ttft", "ttft= is no time limit"),
        ("ttft=2", "ttft=2 is no time limit"),
        ("ttft=2 s", "ttft=2 s is no time limit"),
        ("ttft=2min", "ttft=2min is no time limit"),
        ("ttft=-2s", "ttft=-2s is no time limit"),
        ("ttft=infs", "ttft=infs is no time limit"),
        ("ttft=0s", "nothing is that fast"),
        ("ttft=2s,ttft=1s", "ttft is given twice"),
        ("tpot=2s+1ms@5", "only the limit of ttft grows"),
        ("itl=2s", "'itl' is no objective"),
        ("ttft=2s,", "'' is no objective"),
        ("ttft=2s+1ms", "ttft=2s+1ms is no time limit"),
        ("ttft=2s+1ms@", "ttft=2s+1ms@ is no time limit"),
        ("ttft=1e3s", "ttft=1e3s is no time limit"),
        ("TTFT=2s", "'TTFT' is no objective"),
    ],
)
def test_other_writing_is_refused(text, complaint):
    with pytest.raises(SloError) as caught:
        parse_slo(text)
    assert complaint in str(caught.value)
