from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.sample import Sample
from router.engines.base import UnrecognisedPageError
from router.engines.catalogue import DIALECTS, by_name, recognise

PAGES = Path(__file__).parent / "pages"


def page(name):
    return (PAGES / name).read_bytes()


def dialect(name):
    found = by_name(name)
    assert found is not None
    return found


EXPECTED = {
    "vllm_0_32.txt": (
        "vllm",
        Sample(
            running=2,
            waiting=1,
            kv_occupancy=0.000854544344747632,
            preemptions_total=0,
            prefix_queries_total=25,
            prefix_hits_total=0,
            kv_block_tokens=32,
            kv_blocks=8192,
        ),
    ),
    "vllm_0_8.txt": (
        "vllm",
        Sample(
            running=5,
            waiting=2,
            kv_occupancy=0.5,
            preemptions_total=7,
            prefix_queries_total=400,
            prefix_hits_total=100,
            kv_block_tokens=16,
            kv_blocks=573,
        ),
    ),
    "vllm_dp2.txt": (
        "vllm",
        Sample(running=7, waiting=2, kv_occupancy=0.4, kv_block_tokens=16, kv_blocks=2000),
    ),
    "sglang_0_5.txt": (
        "sglang",
        Sample(
            running=9,
            waiting=3,
            kv_occupancy=0.32,
            preemptions_total=6,
            prefix_queries_total=12000,
            prefix_hits_total=3000,
            kv_block_tokens=64,
            kv_blocks=4000,
        ),
    ),
    "sglang_v1_loads.json": ("sglang", Sample(running=5, waiting=1, kv_occupancy=0.02)),
    "sglang_get_load.json": ("sglang", Sample(running=6, waiting=2)),
    "tgi.txt": ("tgi", Sample(running=4, waiting=3)),
    "trtllm_prometheus.txt": (
        "trtllm",
        Sample(
            running=5,
            waiting=3,
            kv_occupancy=0.6,
            prefix_queries_total=90000,
            prefix_hits_total=30000,
            kv_block_tokens=64,
            kv_blocks=1000,
        ),
    ),
    "trtllm_iterations.json": (
        "trtllm",
        Sample(
            running=5,
            waiting=3,
            kv_occupancy=0.6,
            prefix_queries_total=64000,
            prefix_hits_total=54400,
            kv_block_tokens=64,
            kv_blocks=1000,
        ),
    ),
    "llamacpp.txt": (
        "llamacpp",
        Sample(running=2, waiting=4, prefix_queries_total=49, prefix_hits_total=4),
    ),
    "llamacpp_slots.json": ("llamacpp", Sample(running=1)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_page_is_read(name):
    engine, expected = EXPECTED[name]
    sample = dialect(engine).parse(page(name))
    assert sample.kv_occupancy == pytest.approx(expected.kv_occupancy)
    fields = [f for f in Sample.__dataclass_fields__ if f != "kv_occupancy"]
    assert {f: getattr(sample, f) for f in fields} == {f: getattr(expected, f) for f in fields}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_page_is_recognised_by_its_own_engine_alone(name):
    engine, _ = EXPECTED[name]
    assert [d.name for d in DIALECTS if d.recognises(page(name))] == [engine]
    found = recognise(page(name))
    assert found is not None
    assert found.name == engine


@pytest.mark.parametrize("engine", [d.name for d in DIALECTS])
@pytest.mark.parametrize("name", EXPECTED)
def test_another_engines_page_is_refused(engine, name):
    if EXPECTED[name][0] != engine:
        with pytest.raises(UnrecognisedPageError):
            dialect(engine).parse(page(name))


@pytest.mark.parametrize("text", ["", "\n", "<html>", "{}", "[1]", "null", '{"a":', "up 1\n"])
def test_a_page_of_nobodys(text):
    assert recognise(text.encode()) is None
    for each in DIALECTS:
        with pytest.raises(UnrecognisedPageError):
            each.parse(text.encode())


@given(st.sampled_from(sorted(EXPECTED)), st.data())
def test_a_damaged_page_gives_a_sample_or_a_value_error(name, data):
    whole = page(name)
    start = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=20))
    damaged = whole[:start] + junk + whole[data.draw(st.integers(start, len(whole))) :]
    for each in DIALECTS:
        try:
            sample = each.parse(damaged)
            each.unfit(damaged)
        except ValueError:
            continue
        assert sample.kv_occupancy is None or 0 <= sample.kv_occupancy <= 1
        for count in (sample.running, sample.waiting, sample.kv_blocks, sample.preemptions_total):
            assert count is None or count >= 0
        each.gaps(sample)


def test_complete_pages_have_no_gaps_but_the_known_ones():
    gaps = {
        name: dialect(engine).gaps(dialect(engine).parse(page(name)))
        for name, (engine, _) in EXPECTED.items()
    }
    assert {name for name, missed in gaps.items() if missed} == {
        "sglang_get_load.json",  # tells no KV occupancy
        "llamacpp_slots.json",  # tells no waiting requests
    }


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1"])
def test_a_gauge_that_is_no_count_is_none_and_a_gap(value):
    sick = page("vllm_0_8.txt").replace(
        b'running{model_name="mistral-7b"} 5.0',
        b'running{model_name="mistral-7b"} ' + value.encode(),
    )
    sample = dialect("vllm").parse(sick)
    assert sample.running is None
    assert sample.waiting == 2
    assert dialect("vllm").gaps(sample) == ("no usable vllm:num_requests_running",)


def test_counts_beyond_all_numbers_are_none():
    page_ = b"vllm:num_requests_running 1e308\n" * 9 + b"vllm:num_requests_waiting 1e999\n"
    sample = dialect("vllm").parse(page_)
    assert (sample.running, sample.waiting) == (None, None)


@pytest.mark.parametrize("number", ["-1", "1" + "0" * 400, "1.5", "NaN", "null"])
@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("trtllm", '[{"numActiveRequests":%s}]'),
        (
            "trtllm",
            '[{"numActiveRequests":1,"kvCacheStats":{"maxNumBlocks":1,"usedNumBlocks":%s}}]',
        ),
        ("sglang", '{"loads":[{"num_waiting_reqs":%s}]}'),
        ("llamacpp", '[{"is_processing":%s}]'),
    ],
)
def test_json_numbers_that_are_no_counts_spoil_the_page(engine, text, number):
    with pytest.raises(UnrecognisedPageError, match="neither gauges nor"):
        dialect(engine).parse((text % number).encode())


def test_a_gauge_without_a_number_is_an_error():
    sick = page("vllm_0_8.txt").replace(b"} 5.0", b"} five")
    with pytest.raises(ValueError, match="five"):
        dialect("vllm").parse(sick)


class TestVllm:
    vllm = dialect("vllm")

    def test_renaming_the_kv_gauge_is_told(self):
        renamed = page("vllm_0_32.txt").replace(b"kv_cache_usage_perc", b"kv_usage_next_name")
        (gap,) = self.vllm.gaps(self.vllm.parse(renamed))
        assert "vllm:kv_cache_usage_perc" in gap
        assert "vllm:gpu_cache_usage_perc" in gap

    def test_awake_is_fit(self):
        for name in ("vllm_0_32.txt", "vllm_0_8.txt", "vllm_dp2.txt"):
            assert self.vllm.unfit(page(name)) is None

    def test_asleep_is_unfit(self):
        reason = self.vllm.unfit(page("vllm_asleep.txt"))
        assert reason is not None
        assert "asleep" in reason

    def test_one_rank_asleep_is_unfit(self):
        awake = b'engine="1",model_name="m",sleep_state="awake"} '
        half = page("vllm_dp2.txt").replace(awake + b"1.0", awake + b"0.0")
        assert self.vllm.unfit(half) is not None

    def test_blocks_not_resolved_yet_are_unknown(self):
        early = page("vllm_0_8.txt").replace(b'num_gpu_blocks="573"', b'num_gpu_blocks="None"')
        sample = self.vllm.parse(early)
        assert (sample.kv_blocks, sample.kv_block_tokens) == (None, 16)

    def test_statistics_switched_off_are_told(self):
        with pytest.raises(UnrecognisedPageError, match="--disable-log-stats"):
            self.vllm.parse(b"python_info 1\nhttp_requests_total 5\n")


class TestSglang:
    sglang = dialect("sglang")

    def test_priorities_are_not_added_to_their_total(self):
        text = b'sglang:num_running_reqs{priority=""} 5\nsglang:num_running_reqs{priority="1"} 5\n'
        assert self.sglang.parse(text).running == 5

    def test_loads_without_running_requests_are_a_gap_not_a_zero(self):
        sample = self.sglang.parse(b'{"loads":[{"num_waiting_reqs":1,"token_usage":0.5}]}')
        assert sample.running is None
        assert self.sglang.gaps(sample) == ("no usable sglang:num_running_reqs",)


class TestTrtllm:
    trtllm = dialect("trtllm")

    def test_no_iteration_since_the_last_look_claims_nothing(self):
        sample = self.trtllm.parse(b"[]")
        assert sample == Sample()
        assert self.trtllm.gaps(sample) == ()

    def test_ranks_are_added_up_at_their_last_iteration(self):
        def row(rank, iteration, active, used):
            cache = {"maxNumBlocks": 100, "usedNumBlocks": used, "tokensPerBlock": 32}
            return {
                "iter": iteration,
                "attentionDpRank": rank,
                "numActiveRequests": active,
                "numQueuedRequests": 1,
                "kvCacheStats": cache,
            }

        rows = [row(0, 1, 9, 90), row(1, 1, 9, 90), row(0, 2, 3, 20), row(1, 2, 4, 60)]
        sample = self.trtllm.parse(msgspec.json.encode(rows))
        assert (sample.running, sample.waiting, sample.kv_blocks) == (7, 2, 200)
        assert sample.kv_occupancy == pytest.approx(0.4)
        assert sample.prefix_hits_total is None

    def test_iterations_without_a_kv_cache(self):
        sample = self.trtllm.parse(b'[{"numActiveRequests":1,"kvCacheStats":null}]')
        assert (sample.running, sample.kv_occupancy, sample.kv_block_tokens) == (1, None, None)
        assert len(self.trtllm.gaps(sample)) == 2


def test_engines_are_found_by_name():
    assert by_name("auto") is None
    assert [by_name(d.name) for d in DIALECTS] == list(DIALECTS)
    with pytest.raises(ValueError, match=r"unknown engine 'vlm'; known are auto, vllm, .*generic"):
        by_name("vlm")
