"""Many streams at once, and the order in which their tokens come."""

import asyncio

from loadgen.engine.sequence import Sequence
from loadgen.replica.clock import Lag, VirtualClock

TEXT = "/v1/completions"


async def test_200_streams_get_all_their_tokens_and_nothing_is_left(start):
    client = await start(speed=20.0)

    async def one(number):
        body = {"prompt": f"stream {number}", "max_tokens": 40, "ignore_eos": True}
        events = await client.stream(TEXT, body)
        assert len(events) == 41
        assert events[-1] == "[DONE]"
        return "".join(event["choices"][0]["text"] for event in events[:-1])

    texts = await asyncio.gather(*(one(number) for number in range(200)))
    assert len(set(texts)) == 200
    client.assert_idle()
    assert client.replica.engine.generated_tokens_total == 200 * 40


class Waiter:
    finish_reason = "length"

    def __init__(self):
        self.done = asyncio.Event()
        self.progress_seen = []

    def progress(self, generated):
        self.progress_seen.append(generated)

    def finished(self):
        self.done.set()


async def test_requests_that_come_together_share_their_steps(start):
    client = await start(speed=100.0)
    driver = client.replica.driver
    waiters = [Waiter() for _ in range(20)]
    for number, waiter in enumerate(waiters):
        driver.submit(Sequence(10, 50), waiter, streams=number == 0)
    for waiter in waiters:
        await waiter.done.wait()
    assert client.replica.engine.steps_total == 50
    assert waiters[0].progress_seen[-1] == 50
    assert waiters[0].progress_seen == sorted(waiters[0].progress_seen)
    assert waiters[1].progress_seen == []


async def test_an_aborted_sequence_is_heard_of_no_more(start):
    client = await start(speed=1.0)
    driver, waiter, sequence = client.replica.driver, Waiter(), Sequence(10, 5000)
    driver.submit(sequence, waiter, streams=True)
    driver.abort(sequence)
    driver.abort(sequence)
    driver.refresh()
    assert driver.open == 0
    assert client.replica.statistics.finished_total["abort"] == 1
    assert not waiter.progress_seen


async def test_a_stream_and_an_unstreamed_request_go_on_together(start):
    client = await start(speed=50.0)
    body = {"prompt": "a", "max_tokens": 60, "ignore_eos": True}
    streamed, whole = await asyncio.gather(client.stream(TEXT, body), client.post(TEXT, body))
    text = "".join(event["choices"][0]["text"] for event in streamed[:-1])
    assert whole[1]["choices"][0]["text"] == text


async def test_a_preempted_stream_goes_on_where_it_was(start):
    client = await start(speed=200.0, kv_tokens=1600)
    bodies = [
        {"prompt": [number] * 400, "max_tokens": 500, "ignore_eos": True} for number in range(3)
    ]
    streams = await asyncio.gather(*(client.stream(TEXT, body) for body in bodies))
    assert client.replica.engine.preemptions_total > 0
    for body, events in zip(bodies, streams, strict=True):
        alone = (await client.post(TEXT, body))[1]["choices"][0]["text"]
        assert "".join(e["choices"][0]["text"] for e in events[:-1]) == alone


def test_virtual_time_is_a_multiple_of_real_time():
    time = [100.0]
    clock = VirtualClock(lambda: time[0], 50.0)
    assert clock.now_s() == 0.0
    time[0] = 102.0
    assert clock.now_s() == 100.0
    assert clock.loop_s(100.0) == 102.0


def test_the_worst_lag_is_remembered_for_five_to_ten_seconds():
    lag = Lag()
    lag.note(0.3, 1000.0)
    lag.note(0.1, 1001.0)
    assert lag.worst_s(1004.0) == 0.3
    assert lag.worst_s(1006.0) == 0.3
    assert lag.worst_s(1016.0) == 0.0
