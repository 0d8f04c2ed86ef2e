"""The demo, with real processes at a small scale, and as a program that is interrupted."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import psutil
import pytest
from rich.console import Console

from loadgen.demo import __main__ as program
from loadgen.demo.reading import broken_off, reading
from loadgen.trace.selection import Selection
from loadgen.trial.errors import TrialError
from loadgen.trial.fleet import FleetSettings
from loadgen.trial.plan import Case, Kill, Plan
from loadgen.trial.screen import Screen
from loadgen.trial.trial import perform

DEADLINE_S = 50


@pytest.fixture(autouse=True)
def nothing_left():
    """Other tests of this worker may have left a process, such as multiprocessing's tracker."""
    before = set(psutil.Process().children(recursive=True))
    yield
    assert not set(psutil.Process().children(recursive=True)) - before, "a process is left"


def small_plan(*cases):
    """Two replicas and 24 long answers in 8 s of the engines, which are 1 s here."""
    trace = Selection(spec="bimodal:rate=3,n=24,short=100,long=3000,output=400,cv=1").open()
    fleet = FleetSettings(replicas=2, speed=8.0)
    return Plan(traces=(trace,), cases=cases, fleet=fleet)


def test_two_policies_and_a_killed_replica_with_real_processes():
    plan = small_plan(
        Case("round_robin"), Case("least_requests", Kill(after_s=6.0, back_after_s=0.5))
    )
    console = Console(file=io.StringIO(), width=200)
    outcomes = []
    assert perform(plan, Screen(plan, console), outcomes.append) is None

    calm, disturbed = outcomes
    assert calm.report.requests.succeeded == 24
    assert [replica.requests for replica in calm.report.replicas] == [12, 12]
    assert broken_off(calm) == 0
    assert calm.killed.replica is None

    assert disturbed.report.requests.succeeded == 24
    assert disturbed.continued > 0
    assert broken_off(disturbed) == 0
    assert calm.report.salt == disturbed.report.salt

    assert "[2/2] bimodal" in console.file.getvalue()
    told = reading(outcomes)
    assert told[2].startswith(
        f"least_requests + kill: {disturbed.killed.replica} got SIGKILL 6 s after the first "
        f"request. {disturbed.continued} stream"
    )
    assert told[3] == "Streams dropped: round_robin 0, least_requests + kill 0."


def test_a_policy_that_cannot_be_loaded_breaks_the_demo_and_leaves_nothing(monkeypatch):
    console = Console(file=io.StringIO(), width=400)
    assert program.demo(small_plan(Case("no_such_policy")), console) == program.EXIT_BROKEN
    assert "the demo broke: router with no_such_policy ended with status 2 | pointsman: " in (
        console.file.getvalue()
    )


@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGINT, 1), (signal.SIGINT, 5), (signal.SIGTERM, 5)]
)
def test_interrupted_it_leaves_no_process_behind(number, processes):
    with subprocess.Popen(
        [sys.executable, "-m", "loadgen.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as running:
        try:
            seen = children_of(running, processes)
            running.send_signal(number)
            output, _ = running.communicate(timeout=DEADLINE_S)
        finally:
            running.kill()
    assert running.returncode == 128 + number
    assert f"ended by {number.name}; every process is gone" in output.decode()
    assert not any(child.is_running() for child in seen)


def children_of(running, count):
    """Wait until ``running`` has ``count`` children; its output says that it has begun."""
    for line in running.stdout:
        if b"[1/4]" in line:
            break
    parent = psutil.Process(running.pid)
    while len(seen := parent.children(recursive=True)) < count:
        assert running.poll() is None, "ended before it was interrupted"
    return seen


def test_the_real_plan_has_three_policies_and_a_kill_on_a_real_trace(monkeypatch):
    plans = []

    def demo(plan, _console):
        plans.append(plan)
        return 0

    monkeypatch.setattr(program, "demo", demo)
    assert program.main() == 0
    (plan,) = plans
    undisturbed = {case.policy for case in plan.cases if case.kill is None}
    assert len(undisturbed) >= 3
    (kill,) = (case.kill for case in plan.cases if case.kill is not None)
    (trace,) = plan.traces
    assert trace.name == "mooncake-conversation"
    assert 0 < kill.after_s + kill.back_after_s < trace.duration_s
    lengths = [request.prompt_tokens for request in trace.requests]
    assert max(lengths) > 50 * min(lengths)


def test_a_demo_that_breaks_says_so(monkeypatch):
    def broken(*_):
        raise TrialError("replica 1 ended with status 1")

    monkeypatch.setattr(program, "perform", broken)
    console = Console(file=io.StringIO(), width=200)
    assert program.demo(small_plan(Case("random")), console) == program.EXIT_BROKEN
    assert "the demo broke: replica 1 ended with status 1" in console.file.getvalue()
