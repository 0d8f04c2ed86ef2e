"""The profiles, and the figures that they were made to reproduce."""

from importlib.resources import files

import pytest

from loadgen.engine.cost import StepCost
from loadgen.engine.engine import Engine
from loadgen.engine.profile import load_profile, profile_names
from loadgen.engine.sequence import Sequence

NAMES = ["70b-tp4-a100", "70b-tp4-h100", "70b-tp8-a100", "70b-tp8-h100", "8b-a100", "8b-h100"]


def ttft_s(name, prompt_tokens):
    eng = Engine(load_profile(name))
    sequence = Sequence(prompt_tokens, 1)
    eng.submit(sequence, 0.0)
    eng.advance(1000.0)
    assert sequence.first_token_s is not None
    return sequence.first_token_s


def test_all_profiles_are_there_under_their_own_names():
    assert profile_names() == NAMES
    assert [load_profile(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("prompt_tokens", [128_000, 131_000])
def test_a_128k_prompt_at_70b_on_h100s_takes_between_9_and_20_s(prompt_tokens):
    eight, four = ttft_s("70b-tp8-h100", prompt_tokens), ttft_s("70b-tp4-h100", prompt_tokens)
    assert 9.0 < eight < four < 20.0


@pytest.mark.parametrize(
    ("name", "layers"), [(n, 80) if n.startswith("70b") else (n, 32) for n in NAMES]
)
def test_kv_bytes_per_token_follow_from_the_models_shape(name, layers):
    kv_heads, head_size, value_bytes = 8, 128, 2
    profile = load_profile(name)
    assert profile.kv_bytes_per_token == 2 * layers * kv_heads * head_size * value_bytes
    if layers == 80:
        assert profile.kv_bytes_per_token == 320 * 1024


@pytest.mark.parametrize(
    ("name", "gpus", "weights_gib"),
    [
        ("8b-h100", 1, 15.0),
        ("8b-a100", 1, 15.0),
        ("70b-tp4-h100", 4, 131.4),
        ("70b-tp4-a100", 4, 131.4),
        ("70b-tp8-h100", 8, 131.4),
        ("70b-tp8-a100", 8, 131.4),
    ],
)
def test_the_kv_cache_fits_beside_the_weights(name, gpus, weights_gib):
    profile = load_profile(name)
    kv_gib = profile.kv_tokens * profile.kv_bytes_per_token / 2**30
    assert 0.85 * gpus * 72.8 < kv_gib + weights_gib + 4 * gpus < gpus * 72.8 + 4


# Kernel times of Vidur's profiles: what remains of a step without attention and CPU time.
@pytest.mark.parametrize(
    ("name", "tokens", "measured_ms", "within"),
    [
        ("8b-a100", 1, 10.4, 0.05),
        ("8b-a100", 512, 34.6, 0.25),
        ("8b-a100", 2048, 145.6, 0.05),
        ("8b-a100", 8192, 545, 0.05),
        ("70b-tp4-a100", 2048, 336, 0.05),
        ("70b-tp8-a100", 8192, 701, 0.05),
        ("70b-tp4-h100", 512, 30.0, 0.25),
        ("70b-tp4-h100", 2048, 111, 0.10),
        ("70b-tp8-h100", 2048, 63.7, 0.05),
    ],
)
def test_step_times_reproduce_the_kernel_profiles(name, tokens, measured_ms, within):
    profile = load_profile(name)
    cost = StepCost(profile)
    beside_ms = profile.cpu.step_ms + profile.cpu.sequence_ms + cost._all_reduce_ms(tokens)
    assert cost.base_s(tokens, 1) * 1e3 - beside_ms == pytest.approx(measured_ms, rel=within)


def test_all_reduce_of_a_70b_decode_and_prefill():
    cost = StepCost(load_profile("70b-tp4-h100"))
    assert cost._all_reduce_ms(1) == pytest.approx(6.4)
    assert cost._all_reduce_ms(2048) == pytest.approx(27, rel=0.05)
    assert StepCost(load_profile("8b-h100"))._all_reduce_ms(8192) == 0


def test_attention_of_a_cold_prefill_on_an_a100():
    cost = StepCost(load_profile("8b-a100"))
    assert cost.prefill_attention_s(8192, 0) == pytest.approx(0.094, rel=0.01)
    assert cost.prefill_attention_s(32768, 0) == pytest.approx(1.5, rel=0.01)
    chunks = sum(cost.prefill_attention_s(2048, there) for there in range(0, 32768, 2048))
    assert chunks == pytest.approx(cost.prefill_attention_s(32768, 0))


def test_decode_of_64_sequences_of_2000_tokens_on_an_a100():
    cost = StepCost(load_profile("8b-a100"))
    assert cost.context_s * 64 * 2000 == pytest.approx(0.0102, rel=0.01)


def test_a_profile_of_ones_own(tmp_path):
    text = (tmp_path / "mine.toml").write_text
    source = files("loadgen").joinpath("profiles/8b-h100.toml").read_text(encoding="utf-8")
    text(source.replace('name = "8b-h100"', 'name = "mine"'))
    assert load_profile(str(tmp_path / "mine.toml")).name == "mine"
    text(source.replace("floor_ms", "flor_ms"))
    with pytest.raises(ValueError, match=r"mine\.toml.*linear"):
        load_profile(str(tmp_path / "mine.toml"))
    text(source.replace("b_ms_per_1000_tokens = 24.0", "b_ms_per_1000_tokens = -1.0"))
    with pytest.raises(ValueError, match=r"> 0.*linear\.b_ms_per_1000_tokens"):
        load_profile(str(tmp_path / "mine.toml"))
    with pytest.raises(ValueError, match=r"cannot read profile .*gone\.toml"):
        load_profile(str(tmp_path / "gone.toml"))


def test_an_unknown_profile_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"unknown profile '9b'.*70b-tp4-a100.*8b-h100"):
        load_profile("9b")
