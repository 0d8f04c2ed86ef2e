"""The command ``pointsman trial``: what it makes of its options and of what comes back."""

from __future__ import annotations

import signal

import pytest
from click.testing import CliRunner

from loadgen.replay.report import load_report
from loadgen.trial import cli
from loadgen.trial.errors import TrialError
from loadgen.trial.plan import Kill
from tests.loadgen.trial.made_outcomes import outcome_of


@pytest.fixture
def performed(monkeypatch):
    """Plans that were performed; each run succeeds, but ``failed`` requests fail."""
    plans = []

    def perform(plan, _screen, ended):
        plans.append(plan)
        for trace, case in plan.runs:
            ended(outcome_of(case, trace, failed=perform.failed))
        return perform.signal

    perform.failed, perform.signal = 0, None
    perform.plans = plans
    monkeypatch.setattr(cli, "perform", perform)
    return perform


def invoke(*arguments):
    return CliRunner().invoke(cli.command, arguments, prog_name="pointsman trial")


def test_one_trace_under_the_four_policies_is_the_default(performed):
    result = invoke("--trace", "bimodal:n=3")
    assert result.exit_code == 0, result.output
    (plan,) = performed.plans
    policies = [case.policy for case in plan.cases]
    assert policies == ["round_robin", "least_requests", "power_of_two", "least_kv"]
    assert all(case.kill is None for case in plan.cases)
    assert (plan.fleet.replicas, plan.fleet.profile, plan.fleet.speed) == (4, "8b-h100", 1)
    assert all(policy in result.stdout for policy in policies)


def test_what_the_options_do_to_the_plan(performed):
    result = invoke(
        *("--trace", "mooncake-conversation", "--trace", "azure-code", "--jitter", "--seed", "3"),
        *("--policy", "least_kv, random", "--policy", "round_robin", "--replicas", "2"),
        *("--profile", "70b-tp4-h100", "--speed", "2", "--max-batched-tokens", "2048"),
        *("--duration", "20", "--rate-scale", "1", "--rate-scale", "3", "--slo", "ttft=1s"),
        *("--timeout", "50", "--kill-after", "2", "--back-after", "1"),
        *("--max-input-tokens", "500", "--max-output-tokens", "5", "--start", "10"),
    )
    assert result.exit_code == 0, result.output
    (plan,) = performed.plans
    assert [case.policy for case in plan.cases] == ["least_kv", "random", "round_robin"]
    assert {case.kill for case in plan.cases} == {Kill(after_s=2, back_after_s=1)}
    assert [trace.name for trace in plan.traces] == ["mooncake-conversation", "azure-code"]
    assert "arrivals 3 times as fast" not in plan.traces[0].changes
    assert "arrivals 3 times as fast" in plan.traces[1].changes
    assert plan.traces[0].changes[0].startswith("jitter (seed 3)")
    for trace in plan.traces:
        assert "only arrivals from 10 s to 30 s" in trace.changes
        assert max(request.prompt_tokens for request in trace.requests) <= 500
        assert max(request.output_tokens for request in trace.requests) <= 5
    fleet = plan.fleet
    assert (fleet.replicas, fleet.profile, fleet.speed) == (2, "70b-tp4-h100", 2)
    assert fleet.max_batched_tokens == 2048
    assert (str(plan.slo), plan.timeout_s) == ("ttft=1s", 50)


def test_markdown_and_reports(performed, tmp_path):
    out = tmp_path / "out"
    arguments = ("--trace", "bimodal:n=3", "--policy", "random", "--markdown", "--out", str(out))
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "| random | 100.0% |" in result.stdout
    report = load_report((out / "bimodal-n-3" / "random.json").read_bytes())
    assert report.command == f"pointsman trial {' '.join(arguments)}"


def test_failed_requests_make_it_exit_1_unless_a_replica_was_killed(performed):
    performed.failed = 1
    arguments = ("--trace", "bimodal:n=3", "--policy", "random")
    assert invoke(*arguments).exit_code == 1
    assert invoke(*arguments, "--kill-after", "1").exit_code == 0


def test_ended_by_a_signal_it_prints_what_it_has(performed):
    performed.signal = signal.SIGINT
    result = invoke("--trace", "bimodal:n=3", "--policy", "random")
    assert result.exit_code == 130
    assert "random" in result.stdout


def test_a_process_that_fails_makes_it_exit_2(monkeypatch):
    def perform(*_):
        raise TrialError("the router ended with status 2 | because")

    monkeypatch.setattr(cli, "perform", perform)
    result = invoke("--trace", "bimodal:n=3")
    assert result.exit_code == 2
    assert "the router ended with status 2 | because" in result.output


def test_a_report_that_cannot_be_written_makes_it_exit_2(performed, tmp_path):
    (tmp_path / "out").write_text("a file")
    result = invoke("--trace", "bimodal:n=3", "--out", str(tmp_path / "out" / "below"))
    assert result.exit_code == 2
    assert "Not a directory" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Missing option '--trace'"),
        (("--trace", "nowhere"), "nowhere: no such file, and no trace has that name"),
        (("--trace", "bimodal", "--start", "1e9"), "no request arrives between --start"),
        (("--trace", "bimodal", "--policy", "least_kw"), "policy 'least_kw'"),
        (("--trace", "bimodal", "--policy", "random,random"), "one is named twice"),
        (("--trace", "bimodal", "--policy", "random,"), "policy ''"),
        (("--trace", "bimodal", "--profile", "9b"), "unknown profile '9b'"),
        (("--trace", "bimodal", "--replicas", "0"), "0 is not in the range"),
        (("--trace", "bimodal", "--speed", "nan"), "nan is no finite number"),
        (("--trace", "bimodal", "--rate-scale", "inf"), "inf is no finite number"),
        (("--trace", "bimodal", "--back-after", "1"), "--back-after goes with --kill-after"),
        (
            ("--trace", "bimodal", "--rate-scale", "1", "--rate-scale", "2"),
            "--rate-scale is given 2 times for 1 traces: once, or for each",
        ),
    ],
)
def test_bad_input_makes_it_exit_2_and_says_why(performed, arguments, complaint):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output
    assert not performed.plans
