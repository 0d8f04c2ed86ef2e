"""What is learned of a replica's speed, from an engine whose speed is known."""

from __future__ import annotations

from random import Random

import pytest

from policies.forecast import Clock, Forecast, Prefill, Stream
from policies.speed import Speed
from policies.survival import Survival
from router.core.pace import SAME_STEP_S, Pace

TRUE = Speed(
    prefill_s=0.02,
    token_s=60e-6,
    pair_s=3e-9,
    step_s=0.02,
    stream_s=60e-6,
    context_s=20e-9,
    steps_per_token=1 / 2048,
)
LAW = Survival()


class Engine:
    """Works off prefills one by one, and lets its streams go on between them."""

    def __init__(self, true=TRUE, *, noise=0.0):
        self.true = true
        self.pace = Pace(Forecast(Clock()))
        self.rng = Random(4)
        self.noise = noise
        self.now = 100.0

    @property
    def speed(self):
        return self.pace.forecast.speed

    def prefill(self, tokens=None, cached=0, *, sent_s=None):
        """One prefill, from its turn to its first token."""
        if tokens is None:
            tokens = int(self.rng.lognormvariate(7, 1.2)) + 1
        sent_s = self.now if sent_s is None else sent_s
        prefill = Prefill(sent_s, tokens, cached, 0.0, 0.06, LAW)
        self.now += self.true.prefill_time_s(tokens, cached) * self.rng.lognormvariate(
            0, self.noise
        )
        self.pace.first_token(prefill, self.now)
        self.now += 0.05

    def decode(self, streams, context_tokens, steps=400, told=16):
        """Some streams, with no prefill between."""
        forecast = self.pace.forecast
        forecast.context_tokens = context_tokens
        forecast.streams = {
            key: Stream(self.now, self.now, 0, context_tokens // streams, 0.06, LAW)
            for key in range(streams)
        }
        self.pace.probe = None
        for _ in range(0, steps, told):
            self.now += told * self.true.step_time_s(streams, context_tokens)
            for key, stream in forecast.streams.items():
                stream.tokens += told
                self.pace.progress(key, stream, self.now)
        forecast.streams = {}


@pytest.mark.parametrize(("noise", "off"), [(0.0, 0.05), (0.15, 0.12)])
def test_prefills_are_foreseen_after_two_hundred(noise, off):
    engine = Engine(noise=noise)
    for _ in range(200):
        engine.prefill()
    for tokens, cached in [(200, 0), (2000, 0), (8000, 0), (2000, 8000)]:
        expected = engine.speed.prefill_time_s(tokens, cached)
        assert expected == pytest.approx(TRUE.prefill_time_s(tokens, cached), rel=off + 0.05)


def test_who_waited_in_the_engine_is_measured_from_the_end_of_the_one_before():
    engine = Engine()
    for _ in range(100):
        sent_s = engine.now - 0.05
        for _ in range(4):
            engine.prefill(sent_s=sent_s)
            engine.now -= 0.05
        engine.now += 10.0
    assert engine.speed.prefill_time_s(4000) == pytest.approx(TRUE.prefill_time_s(4000), rel=0.1)


def test_first_tokens_of_one_step_are_one_prefill():
    engine = Engine()
    for _ in range(200):
        sent_s = engine.now
        tokens = [int(engine.rng.lognormvariate(5, 1)) + 1 for _ in range(3)]
        pairs = sum(count * count / 2 for count in tokens)
        engine.now += TRUE.prefill_s + TRUE.token_s * sum(tokens) + TRUE.pair_s * pairs
        for number, count in enumerate(tokens):
            prefill = Prefill(sent_s, count, 0, 0.0, 0.06, LAW)
            engine.pace.first_token(prefill, engine.now + number * SAME_STEP_S / 4)
        engine.now += 1.0
    assert engine.speed.prefill_time_s(600) == pytest.approx(TRUE.prefill_time_s(600), rel=0.1)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_change_of_speed_is_believed_within_twenty_prefills(factor):
    engine = Engine(noise=0.1)
    for _ in range(200):
        engine.prefill()
    engine.true = Speed(
        prefill_s=factor * TRUE.prefill_s,
        token_s=factor * TRUE.token_s,
        pair_s=factor * TRUE.pair_s,
    )
    for _ in range(20):
        engine.prefill()
    expected = engine.speed.prefill_time_s(2000)
    assert expected == pytest.approx(engine.true.prefill_time_s(2000), rel=0.3)


def test_steps_are_foreseen_from_one_stream_of_many():
    engine = Engine()
    for streams, context in [(1, 1000), (8, 20_000), (32, 60_000), (64, 400_000)] * 8:
        engine.decode(streams, context)
    for streams, context in [(4, 8000), (16, 100_000), (64, 300_000)]:
        expected = engine.speed.step_time_s(streams, context)
        assert expected == pytest.approx(TRUE.step_time_s(streams, context), rel=0.1)


def test_one_late_first_token_moves_little():
    engine = Engine()
    for _ in range(100):
        engine.prefill()
    before = engine.speed.prefill_time_s(2000)
    engine.pace.first_token(Prefill(engine.now, 2000, 0, 0.0, 0.06, LAW), engine.now + 60.0)
    engine.prefill()
    assert engine.speed.prefill_time_s(2000) == pytest.approx(before, rel=0.15)
