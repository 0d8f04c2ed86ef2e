import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.slo import SloError, parse_slo
from router.api.objectives import NO_OBJECTIVES, Objectives, read_objective

TEXT = "ttft=2s+0.25ms@4096,tpot=60ms"
times = st.builds("{}{}".format, st.integers(1, 10_000), st.sampled_from(["us", "ms", "s"]))


@given(times, times, st.integers(0, 100_000), st.integers(0, 1_000_000))
def test_the_limit_is_that_of_the_slo(base, extra, free, prompt_tokens):
    text = f"ttft={base}+{extra}@{free}"
    ttft_s, tpot_s = Objectives(text).of("m", None, prompt_tokens)
    assert ttft_s == pytest.approx(parse_slo(text).ttft_limit_s(prompt_tokens))
    assert tpot_s is None


def test_the_class_wins_over_the_model_and_the_model_over_the_rest():
    objectives = Objectives(TEXT, {"m": "ttft=1s", "free": "none"}, {"batch": "tpot=200ms"})
    assert objectives.classes == {"batch"}
    assert objectives.of("other", None, 4096) == (2.0, 0.06)
    assert objectives.of(None, None, 8096) == (3.0, 0.06)
    assert objectives.of("m", None, 8096) == (1.0, None)
    assert objectives.of("free", None, 8096) == (None, None)
    assert objectives.of("m", "batch", 8096) == (None, 0.2)
    assert NO_OBJECTIVES.of("m", None, 8096) == (None, None)


@pytest.mark.parametrize("text", ["", "None", "ttft=2", "e2e=1s", "ttft=1s,e2e=2s", "ttft=0s"])
def test_what_is_no_objective_is_refused(text):
    with pytest.raises(SloError):
        read_objective(text)
