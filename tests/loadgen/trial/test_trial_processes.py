"""Processes of a trial: heard, watched, and gone afterwards whatever happens."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import psutil
import pytest
import uvloop

from loadgen.trial.errors import TrialError
from loadgen.trial.lifeline import Lifeline
from loadgen.trial.processes import Processes

DEADLINE_S = 30

SAYS_AND_WAITS = "print('up: 7', flush=True); import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up: 7', flush=True); time.sleep(600)"
)
FAILS = "print('one\\ntwo\\nthree\\nno such thing'); raise SystemExit(3)"

PARENT = """
import asyncio
from loadgen.trial.processes import Processes

async def main():
    async with Processes() as processes:
        child = await processes.start("replica", ["replica", "--port", "0", "--load-time", "0"])
        await child.told("http://")
        print(child.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def python(monkeypatch):
    """Children run a piece of Python instead of ``pointsman``: the only argument."""
    monkeypatch.setattr(
        Lifeline, "command", lambda _self, arguments: [sys.executable, "-c", *arguments]
    )


@pytest.fixture(autouse=True)
def left():
    """Tells which processes the test has started and not ended; at its end there are none.

    Another test of the same worker may have started one that outlives it, such as the resource
    tracker of multiprocessing.
    """
    before = set(psutil.Process().children())

    def now():
        return set(psutil.Process().children()) - before

    yield now
    assert not now(), "a process is left"


async def bounded(work):
    async with asyncio.timeout(DEADLINE_S):
        return await work


async def test_a_line_is_heard_however_late_it_is_asked_for(python):
    async with Processes() as processes:
        child = await processes.start("child", [SAYS_AND_WAITS])
        assert await bounded(child.told("up: ")) == "7"
        assert await bounded(child.told("up: ")) == "7"
        assert psutil.pid_exists(child.pid)
    assert not psutil.pid_exists(child.pid)


async def test_standard_input_is_read_to_its_end(python):
    async with Processes() as processes:
        code = f"print('read: ' + open('/dev/stdin').read(), flush=True); {SAYS_AND_WAITS}"
        child = await processes.start("child", [code], stdin=b"a: 1")
        assert await bounded(child.told("read: ")) == "a: 1"


async def test_a_start_that_fails_says_why_in_one_line(python):
    async with Processes() as processes:
        child = await processes.start("the router", [FAILS])
        with pytest.raises(TrialError) as caught:
            await bounded(child.told("up: "))
    assert str(caught.value) == ("the router ended with status 3 | two | three | no such thing")


async def test_work_ends_when_a_process_ends_unasked(python):
    async with Processes() as processes:
        await processes.start("the router", [FAILS])
        with pytest.raises(TrialError, match="the router ended with status 3"):
            await bounded(processes.unless_one_ends(asyncio.Event().wait()))


async def test_work_goes_on_when_a_process_is_killed_on_purpose(python):
    async with Processes() as processes:
        child = await processes.start("child", [SAYS_AND_WAITS])
        await bounded(child.kill())
        assert not psutil.pid_exists(child.pid)
        assert await bounded(processes.unless_one_ends(asyncio.sleep(0, "done"))) == "done"


async def test_what_work_raises_is_raised(python):
    async def fail():
        raise ValueError("own")

    async with Processes() as processes:
        await processes.start("child", [SAYS_AND_WAITS])
        with pytest.raises(ValueError, match="own"):
            await bounded(processes.unless_one_ends(fail()))


async def test_a_process_that_ignores_sigterm_is_killed(python, monkeypatch):
    monkeypatch.setattr("loadgen.trial.processes.STOP_DEADLINE_S", 0.1)
    async with Processes() as processes:
        child = await processes.start("child", [STUBBORN])
        await bounded(child.told("up: "))
    assert not psutil.pid_exists(child.pid)


async def test_a_process_that_never_says_it_is_up_is_not_waited_for_without_end(
    python, monkeypatch
):
    monkeypatch.setattr("loadgen.trial.processes.START_DEADLINE_S", 0.1)
    async with Processes() as processes:
        child = await processes.start("child", [SAYS_AND_WAITS])
        with pytest.raises(TrialError, match="child was not ready after"):
            await bounded(child.told("down: "))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_cancelled_at_any_moment_nothing_is_left(python, left, new_loop):
    async def start():
        async with Processes() as processes:
            for number in range(3):
                child = await processes.start(f"child {number}", [SAYS_AND_WAITS])
                await child.told("up: ")

    async def start_and_cancel():
        for steps in range(12):
            starting = asyncio.create_task(start())
            for _ in range(steps):
                await asyncio.sleep(0)
            starting.cancel()
            await bounded(asyncio.wait([starting]))
            assert starting.cancelled()
            assert not left(), f"a process is left after {steps} steps"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(start_and_cancel())


def test_children_die_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        try:
            child = psutil.Process(int(parent.stdout.readline()))
            assert child.is_running()
        finally:
            parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([child], timeout=DEADLINE_S)
    assert not alive
