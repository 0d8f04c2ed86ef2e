"""The pieces of a trial that need no process: plan, workload, tables, reports, lag."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from loadgen.replay.report import load_report
from loadgen.trial.fleet import FleetSettings
from loadgen.trial.lag import lags_s
from loadgen.trial.plan import START_S, Case, Kill, Plan
from loadgen.trial.reports import ReportFolder
from loadgen.trial.router import router_config
from loadgen.trial.screen import Screen
from loadgen.trial.table import as_markdown, as_table, doubts
from router.config.rules import check_config
from router.config.structs import PollingConfig
from tests.loadgen.trial.made_outcomes import outcome_of, trace_of


def test_a_plan_is_every_trace_under_every_case():
    one, other = trace_of("one", 3), trace_of("other", 5)
    kill = Kill(after_s=1.0)
    plan = Plan(
        traces=(one, other),
        cases=(Case("a"), Case("b", kill)),
        fleet=FleetSettings(speed=2.0),
    )
    assert [(trace.name, case.name) for trace, case in plan.runs] == [
        ("one", "a"),
        ("one", "b + kill"),
        ("other", "a"),
        ("other", "b + kill"),
    ]
    assert plan.expected_s == 2 * (2 + 4) / 2 + 4 * START_S


@pytest.mark.parametrize("speed", [0.5, 1, 8])
def test_the_router_looks_as_often_as_the_engines_speed_asks_for(speed):
    config = router_config("least_kv", ["http://127.0.0.1:1"], speed)
    check_config(config)
    assert config.polling.interval_s * speed == PollingConfig().interval_s
    assert config.polling.sample_lifetime_s * speed == PollingConfig().sample_lifetime_s
    looks_per_s = config.polling.max_per_s
    assert looks_per_s / speed == pytest.approx(PollingConfig().max_per_s)


def test_a_row_for_each_run():
    console = Console(file=io.StringIO(), width=80)
    outcomes = [
        outcome_of(Case("round_robin")),
        outcome_of(Case("[b]", Kill(after_s=1)), failed=1),
    ]
    console.print(as_table(outcomes))
    lines = console.file.getvalue().splitlines()
    figures = "round_robin 100.0% 250 ms 250 ms 50.0 ms 50.0 ms 350 ms 0"
    assert lines[-2].split() == figures.split()
    assert lines[-1].startswith("[b] + kill")
    assert lines[-1].endswith(" 1")
    assert "75.0%" in lines[-1]


def test_a_long_name_costs_no_figure_its_digits():
    console = Console(file=io.StringIO(), width=80)
    name = "least_estimated_completion"
    console.print(as_table([outcome_of(Case(name, Kill(after_s=1)))]))
    told = console.file.getvalue()
    assert "…" not in told
    assert "100.0% 250 ms 250 ms 50.0 ms 50.0 ms 350 ms 0" in " ".join(told.split())


def test_markdown_tells_what_was_sent():
    text = as_markdown([outcome_of(Case("round_robin"))])
    title, empty, heading, rule, row = text.splitlines()
    assert title == ("**t** (4 requests in 3 s, 1.3 per second; made up), SLO `ttft=2s,tpot=60ms`:")
    assert empty == ""
    assert heading.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| round_robin | 100.0% | 250 ms |")


def test_a_run_without_any_success_has_a_row_too():
    trace = trace_of("t", 2)
    assert "| p | 0.0% | - | - | - | - | - | 2 |" in as_markdown(
        [outcome_of(trace=trace, failed=2)]
    )


def test_doubts():
    assert doubts(outcome_of()) == []
    late = doubts(outcome_of(late_s=0.2))
    assert any("client was too slow" in doubt for doubt in late)
    behind = doubts(outcome_of(lag_s=0.7))
    assert behind == [
        "the simulated replicas were 700 ms behind their own clocks: too little CPU for this speed"
    ]


def test_a_kill_that_came_too_late_is_told():
    (doubt,) = doubts(outcome_of(Case("p", Kill(after_s=99))))
    assert doubt.startswith("no replica was killed")


def test_reports_have_a_folder_for_each_trace(tmp_path):
    traces = (trace_of("bimodal:rate=4,n=3"), trace_of("t"), trace_of("t"))
    folder = ReportFolder(tmp_path / "out", traces)
    files = [
        folder.write(outcome_of(Case("a:B", Kill(after_s=1)), trace=trace)) for trace in traces
    ]
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "out/bimodal-rate-4-n-3/a-B-kill.json",
        "out/t/a-B-kill.json",
        "out/t-2/a-B-kill.json",
    ]
    assert load_report(files[0].read_bytes()).trace.name == "bimodal:rate=4,n=3"


def test_the_lag_is_found_on_a_page():
    page = (
        "# TYPE pointsman_replica_clock_lag_seconds gauge\n"
        'pointsman_replica_clock_lag_seconds{model_name="m"} 0.25\n'
        "other 1\n"
    )
    assert lags_s(page) == [0.25]
    assert lags_s("other 1\n") == []


async def test_the_screen_counts_runs_and_tells_doubts():
    console = Console(file=io.StringIO(), width=200)
    trace = trace_of("t")
    plan = Plan(traces=(trace,), cases=(Case("a"), Case("b")), fleet=FleetSettings(speed=4.0))
    screen = Screen(plan, console)
    screen.opening()
    for case in plan.cases:
        async with screen.run(trace, case) as tally:
            assert tally.planned == 4
        screen.ended(outcome_of(case, trace, failed=1, late_s=0.2))
    text = console.file.getvalue()
    assert "2 runs, each with 4 fresh 8b-h100 replicas at 4 times their speed; about 10 s" in text
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[lines.index("[1/2] t, a") + 1].startswith(
        "      75.0% within SLO, 1 of 4 failed; took "
    )
    assert "[2/2] t, b" in lines
    assert text.count("warning: the client was too slow") == 2
