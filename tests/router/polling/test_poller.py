from __future__ import annotations

import asyncio
import logging
from random import Random

import pytest
from polling_rig import FakeReplica, Hang, ListeningFleet, page, rigged, started, until

from router.config.structs import PollingConfig
from router.core.fleet import FleetState
from router.polling.poller import JITTER, Poller


def poller_over(count, **config):
    fleet = FleetState()
    poller = Poller(PollingConfig(**config), fleet, rng=Random(1))
    for index in range(count):
        poller.watch(fleet.add(f"r{index}", f"http://127.0.0.1:{index + 1}"))
    return poller


@pytest.mark.parametrize(
    ("count", "interval_s"),
    [(0, 0.25), (1, 0.25), (47, 0.25), (100, 100 * 2.125 / 400), (500, 500 * 2.125 / 400)],
)
def test_a_large_fleet_is_looked_at_less_often(count, interval_s):
    assert poller_over(count).interval_s == pytest.approx(interval_s)


def test_pauses_are_jittered_within_bounds():
    poller = poller_over(4)
    pauses = [poller._jittered() for _ in range(1000)]
    assert min(pauses) >= 0.25 * (1 - JITTER)
    assert max(pauses) <= 0.25 * (1 + JITTER)
    assert max(pauses) - min(pauses) > 0.25 * JITTER


def test_only_a_stretched_fleet_is_staggered():
    assert poller_over(4)._stagger_s() == 0
    staggers = [poller_over(500)._stagger_s() for _ in range(3)]
    assert all(0 < stagger < 500 * 2.125 / 400 for stagger in staggers)


@pytest.mark.parametrize(("max_per_s", "told"), [(400, 0), (1, 1)])
async def test_a_pace_that_lets_samples_grow_too_old_is_told_once(caplog, fake, max_per_s, told):
    async with rigged(max_per_s=max_per_s, sample_lifetime_s=2.0) as rig:
        for name in ("a", "b"):
            rig.watch(fake, name=name)
    warnings = [r.getMessage() for r in caplog.records]
    assert len(warnings) == told
    assert all(
        "max_per_s 1 each of 1 replicas" in text and "raise either" in text for text in warnings
    )


async def test_the_first_pause_is_cut_short_at_random(rig, fake):
    rig.watch(fake)
    await rig.both()
    first = dict(rig.pacer.pauses)
    await rig.both()
    assert all(first[loop] < 0.25 * (1 + JITTER) for loop in first)
    assert len(set(first.values())) == 2
    assert all(pause >= 0.25 * (1 - JITTER) for pause in rig.pacer.pauses.values())


def test_a_replica_is_watched_once_and_with_a_known_engine():
    fleet = FleetState()
    poller = Poller(PollingConfig(), fleet)
    replica = fleet.add("r", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="unknown engine 'nope'"):
        poller.watch(replica, "nope")
    poller.watch(replica)
    with pytest.raises(ValueError, match="r is watched already"):
        poller.watch(replica)
    with pytest.raises(ValueError, match="expected http"):
        poller.watch(fleet.add("bad", "gopher://x"))


async def test_replicas_join_and_leave_while_it_runs(rig, fake):
    async with started(FakeReplica.vllm()) as other:
        first = rig.watch(fake, name="a")
        await rig.both("a")
        second = rig.watch(other, name="b")
        await rig.both("b")
        assert first.ready
        assert second.ready
        rig.poller.forget(first)
        rig.fleet.told.clear()
        fake.answers["/health"] = (503, b"")
        await rig.both("b")
        await rig.both("b")
        assert {name for _, name in rig.fleet.told} == {"b"}
        with pytest.raises(KeyError):
            rig.poller.forget(first)
        with pytest.raises(KeyError):
            rig.poller.engine(first)


async def test_the_sink_hears_no_more_of_a_replica_forgotten_in_mid_look(rig, fake):
    hangs = {"/health": Hang(), "/metrics": Hang()}
    fake.answers.update(hangs)
    replica = rig.watch(fake)
    await rig.pacer.release("health of r", "load of r")
    for hang in hangs.values():
        await hang.reached.wait()
    rig.poller.forget(replica)
    for hang in hangs.values():
        hang.let_go.set()
    await until(lambda: not rig.poller._ending)
    assert rig.fleet.told == []


async def test_a_replica_forgotten_before_its_watch_began(fake):
    async with rigged() as rig:
        replica = rig.watch(fake)
        rig.poller.forget(replica)
    assert rig.fleet.told == []


async def test_replicas_named_before_the_start_are_watched_from_then_on(fake):
    fleet = ListeningFleet()
    poller = Poller(PollingConfig(interval_s=0.01), fleet)
    replica = fleet.add("r", fake.url)
    poller.watch(replica)
    assert fake.asked == []
    await poller.start()
    try:
        await until(lambda: replica.ready and replica.sample and poller.counters.looks > 10)
    finally:
        await poller.aclose()
    assert replica.sampled_s <= asyncio.get_running_loop().time()
    assert poller.counters.errors == 0


async def test_closing_leaves_no_task_and_no_connection(fake):
    before = asyncio.all_tasks()
    async with rigged(timeout_s=30.0) as rig:
        hang = Hang()
        rig.watch(fake, name="idle")
        await rig.both("idle")
        slow = FakeReplica.vllm()
        slow.answers["/metrics"] = hang
        async with started(slow):
            rig.watch(slow, name="slow")
            await rig.pacer.release("load of slow")
            await hang.reached.wait()
            assert (fake.connections, slow.connections) > (0, 0)
            await rig.poller.aclose()
            await until(lambda: fake.connections == slow.connections == 0)
            watches = [t for t in asyncio.all_tasks() - before if "of " in t.get_name()]
            assert watches == []
    assert rig.poller._tasks == {}
    assert rig.poller._ending == set()


async def test_an_unforeseen_error_is_logged_counted_and_survived(fake, caplog):
    class Sick(ListeningFleet):
        def sampled(self, replica, sample, now):
            raise ZeroDivisionError("sick sink")

    async with rigged(Sick()) as rig:
        replica = rig.watch(fake)
        for _ in range(3):
            await rig.load()
        await rig.health()
        assert replica.ready
        assert rig.poller.counters.errors == 3
    told = [r for r in caplog.records if "unforeseen error" in r.getMessage()]
    assert len(told) == 1
    assert told[0].levelno == logging.ERROR
    assert told[0].exc_info is not None


async def test_a_watch_that_ends_by_itself_is_told(fake, caplog):
    async def sick_sleep(seconds):
        raise ZeroDivisionError("sick sleep")

    poller = Poller(PollingConfig(), FleetState(), sleep=sick_sleep)
    poller.watch(poller._sink.add("r", fake.url))
    await poller.start()
    await until(lambda: poller.counters.errors)
    await poller.aclose()
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]
    assert told == ["watch r ended by an unforeseen error"]


async def test_one_replicas_trouble_is_not_anothers(rig, fake):
    sick = FakeReplica()
    sick.answers = {"/health": (500, b""), "/metrics": (200, page("vllm_0_8.txt")[:300])}
    async with started(sick):
        bad = rig.watch(sick, name="bad")
        good = rig.watch(fake, name="good")
        await rig.both("bad")
        await rig.both("good")
    assert not bad.ready
    assert good.ready
    assert rig.fleet.candidates("tiny") == (good,)
