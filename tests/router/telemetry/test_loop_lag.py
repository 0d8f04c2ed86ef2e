import asyncio

import pytest

from router.telemetry.histogram import Histogram
from router.telemetry.lag import INTERVAL_S, LoopLag


class FakeLoop:
    """A loop whose time is what the test says."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, when, callback):
        self.timers.append((when, callback))
        return asyncio.TimerHandle(when, callback, (), asyncio.get_running_loop())


async def test_the_delay_of_each_timer_is_counted():
    loop, histogram = FakeLoop(), Histogram((0.01, 0.1))
    lag = LoopLag(loop, histogram)
    lag.start()
    for late_s in (0.0, 0.05, 0.5):
        when, ring = loop.timers[-1]
        loop.now = when + late_s
        ring()
    assert histogram.counts == [1, 1, 1]
    assert histogram.total == pytest.approx(0.55)
    assert loop.timers[-1][0] == loop.now + INTERVAL_S
    lag.stop()
    lag.stop()


async def test_it_measures_a_real_loop_until_it_is_stopped():
    measured = asyncio.Event()

    class Noting(Histogram):
        def observe(self, value):
            super().observe(value)
            measured.set()

    histogram = Noting((0.01,))
    lag = LoopLag(asyncio.get_running_loop(), histogram)
    lag.start()
    async with asyncio.timeout(10):
        await measured.wait()
    lag.stop()
    assert sum(histogram.counts) == 1
    assert lag._timer is None
