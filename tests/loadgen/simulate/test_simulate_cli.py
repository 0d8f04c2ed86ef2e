"""The command: what it prints, writes and refuses."""

import json

import pytest
from click.testing import CliRunner

from loadgen.simulate.cli import command
from router.cli.root import run

TRACE = "bimodal:n=60,rate=20"


def invoke(*arguments):
    return CliRunner().invoke(command, arguments, prog_name="pointsman simulate")


def results_of(out):
    return json.loads(out.read_text())["results"]


def test_a_row_for_each_workload_policy_and_seed(tmp_path):
    out = tmp_path / "f.json"
    policies = "round_robin,least_requests"
    result = invoke(
        *(TRACE, "azure-code", "--limit", "50", "--policy", policies, "--seeds", "2"),
        *("--replicas", "2", "--jobs", "1", "--out", str(out)),
    )
    assert result.exit_code == 0, result.output
    rows = results_of(out)
    assert [(row["workload"], row["policy"], row["seed"]) for row in rows] == [
        (workload, policy, seed)
        for workload in (TRACE, "azure-code")
        for policy in policies.split(",")
        for seed in (0, 1)
    ]
    assert {row["fleet"] for row in rows} == {"2 x 8b-h100"}
    assert {row["requests"] for row in rows} == {50}
    assert all(row["capacity_rps"] is None for row in rows)
    assert all(0 < row["ttft_p50_s"] <= row["ttft_p99_s"] for row in rows)
    # each seed draws another trace, and all policies get the same one
    assert rows[0]["rate_rps"] != rows[1]["rate_rps"]
    assert rows[0]["rate_rps"] == rows[2]["rate_rps"]
    assert "medians of 2 seeds" in result.output
    assert "least_requests" in result.output


def test_answers_with_long_gaps_count_as_good_unless_told_otherwise(tmp_path):
    rows = []
    for number, more in enumerate(((), ("--late-gap", "0.02"))):
        out = tmp_path / f"{number}.json"
        asked = (TRACE, "--replicas", "2", "--policy", "round_robin", "--jobs", "1")
        assert invoke(*asked, *more, "--out", str(out)).exit_code == 0
        rows += results_of(out)
    free, bound = rows
    assert free["itl_p999_s"] >= free["itl_p99_s"] > 0.02
    assert bound["goodput"] < free["goodput"]
    assert bound == free | {"goodput": bound["goodput"]}


def test_equal_seeds_give_equal_rows_on_however_many_processes(tmp_path):
    rows = []
    for jobs in ("1", "2"):
        out = tmp_path / f"{jobs}.json"
        asked = (TRACE, "--replicas", "3", "--policy", "power_of_two,least_kv", "--jobs", jobs)
        assert invoke(*asked, "--out", str(out)).exit_code == 0
        rows.append(results_of(out))
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_the_capacity_is_where_the_target_is_just_met(tmp_path):
    def goodput_at(*arguments):
        out = tmp_path / "f.json"
        trace = "bimodal:n=200,rate=20"
        asked = (trace, "--replicas", "2", "--policy", "least_requests", "--out", str(out))
        assert invoke(*asked, *arguments).exit_code == 0
        (row,) = results_of(out)
        return row

    found = goodput_at("--find-capacity", "--target", "80%", "--tolerance", "0.02")
    assert not found["capacity_beyond"]
    assert found["capacity_rps"] == found["rate_rps"] > 0
    assert found["goodput"] >= 0.8
    again = goodput_at("--rate-scale", str(found["rate_scale"]))
    assert again == found | {"capacity_rps": None}
    # the edge may be ragged, but not by half
    assert goodput_at("--rate-scale", str(2 * found["rate_scale"]))["goodput"] < 0.8


def test_a_trace_too_short_to_load_the_fleet_is_told_of(tmp_path):
    out = tmp_path / "f.json"
    asked = (TRACE, "--policy", "random", "--replicas", "30", "--find-capacity")
    result = invoke(*asked, "--out", str(out))
    (row,) = results_of(out)
    assert row["capacity_beyond"]
    assert row["requests"] / row["capacity_rps"] == pytest.approx(10.0, rel=0.1)
    assert f">{row['capacity_rps']:.2f}" in result.output


def test_where_no_rate_meets_the_target_there_is_no_capacity(tmp_path):
    out = tmp_path / "f.json"
    asked = (TRACE, "--limit", "5", "--policy", "random", "--slo", "ttft=1us", "--find-capacity")
    assert invoke(*asked, "--out", str(out)).exit_code == 0
    (row,) = results_of(out)
    assert (row["capacity_rps"], row["goodput"], row["rate_scale"]) == (None, 0.0, 1.0)


def test_jitter_and_the_step_budget_are_told(tmp_path):
    out = tmp_path / "f.json"
    asked = ("mooncake-conversation", "--limit", "40", "--jitter", "--max-batched-tokens", "1024")
    assert invoke(*asked, "--policy", "random", "--out", str(out)).exit_code == 0
    report = json.loads(out.read_text())
    assert "jitter (seed 0)" in report["trace_changes"]["mooncake-conversation"][0]
    assert report["results"][0]["fleet"] == "8 x 8b-h100 (budget 1024)"
    assert report["command"].startswith("pointsman simulate mooncake-conversation --limit 40")


def test_a_scenario_makes_the_fleet_unequal(tmp_path):
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "replicas:\n"
        "  - {count: 2}\n"
        "  - {speed: 0.5, profile: 8b-a100}\n"
        "faults:\n"
        "  - {do: return, replica: 2, at_s: 2}\n"
        "  - {do: die, replica: 2, at_s: 1}\n"
    )
    out = tmp_path / "f.json"
    asked = (TRACE, "--scenario", str(scenario), "--policy", "round_robin", "--out", str(out))
    result = invoke(*asked)
    assert result.exit_code == 0, result.output
    (row,) = results_of(out)
    assert row["fleet"] == "2 x 8b-h100 + 1 x 8b-a100 at 0.5"
    assert row["failed"] > 0


def test_policies_may_have_options(tmp_path):
    out = tmp_path / "f.json"
    policies = "llm_d,llm_d+queue_weight=0+kv_weight=0"
    asked = ("toolagent", "--limit", "80", "--rate-scale", "4", "--replicas", "2")
    assert invoke(*asked, "--policy", policies, "--out", str(out)).exit_code == 0
    rows = results_of(out)
    assert [row["policy"] for row in rows] == policies.split(",")
    assert rows[0]["ttft_p50_s"] != rows[1]["ttft_p50_s"]


def test_a_row_for_each_rate(tmp_path):
    out = tmp_path / "f.json"
    asked = (TRACE, "--policy", "random", "--replicas", "2", "--seeds", "2")
    result = invoke(*asked, "--rates", "4,0.5", "--out", str(out))
    assert result.exit_code == 0
    rows = results_of(out)
    assert [(row["rate_scale"], row["seed"]) for row in rows] == [
        (0.5, 0),
        (0.5, 1),
        (4.0, 0),
        (4.0, 1),
    ]
    assert rows[0]["rate_rps"] * 8 == pytest.approx(rows[2]["rate_rps"])
    assert sum(line.startswith("random") for line in result.output.splitlines()) == 2


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_picture_for_each_workload(tmp_path, ending):
    out = tmp_path / f"p{ending}"
    asked = ("--limit", "30", "--policy", "random,llm_d+kv_weight=1", "--rates", "1,2")
    assert invoke("bimodal:n=40,rate=9", "azure-code", *asked, "--plot", str(out)).exit_code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"p-azure-code{ending}", f"p-bimodal-n-40-rate-9{ending}"]
    kind = {".png": b"\x89PNG", ".svg": b"<svg"}[ending]
    assert all(kind in path.read_bytes()[:4000] for path in tmp_path.iterdir())


def test_a_picture_of_a_search(tmp_path):
    out = tmp_path / "p.svg"
    asked = (TRACE, "--limit", "30", "--policy", "random", "--seeds", "2", "--find-capacity")
    assert invoke(*asked, "--tolerance", "0.2", "--plot", str(out)).exit_code == 0
    assert out.stat().st_size > 10_000


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("loadgen.simulate.plot.find_spec", lambda _: None)
    complaint = "matplotlib is not installed: pip install 'pointsman[plot]'"
    assert_refused(capsys, complaint, TRACE, "--plot", "f.png")


SCENARIOS = [
    ("replicas: [{count: 0}]", "s.yaml:1: $.replicas[0].count: Expected `int` >= 1"),
    ("faults:\n- {do: melt}", "s.yaml:2: $.faults[0].do: Invalid value 'melt'"),
    ("faults:\n- {do: die, replica: 8, at_s: 1}", "there is no replica 8; allowed: 0 to 7"),
    ("faults:\n- {do: return, replica: 1, at_s: 1}", "replica 1 is alive at 1 s, not dead"),
    (
        "faults: [{do: die, replica: 1, at_s: 1}, {do: die, replica: 1, at_s: 2}]",
        "replica 1 is dead at 2 s, not alive or hung",
    ),
    ("faults:\n- {do: resume, replica: 1, at_s: 1}", "replica 1 is alive at 1 s, not hung"),
    (
        "faults: [{do: die, replica: 1, at_s: 1}, {do: hang, replica: 1, at_s: 2}]",
        "replica 1 is dead at 2 s, not alive",
    ),
    ("faults:\n- {do: metrics, replica: 1, at_s: 1, how: odd}", "Invalid enum value 'odd'"),
    ("replicas: [{profile: gameboy}]", "unknown profile 'gameboy'"),
    ("nodes: 3", "unknown field `nodes`"),
    ("a: [", "s.yaml:2: this is not YAML"),
]


@pytest.mark.parametrize(("text", "complaint"), SCENARIOS)
def test_what_is_wrong_with_a_scenario(tmp_path, monkeypatch, capsys, text, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(text)
    assert_refused(capsys, complaint, TRACE, "--scenario", "s.yaml")


MISTAKES = [
    ((), "Missing argument 'TRACE"),
    (("nowhere.jsonl",), "nowhere.jsonl: no such file"),
    (("bimodal:n=0",), "n="),
    ((TRACE, "--policy", "guess"), "policy 'guess': not known"),
    ((TRACE, "--policy", "random,"), "'random,' is no list of policies like a,b,c"),
    ((TRACE, "--policy", "random,random"), "is no list of policies like a,b,c"),
    ((TRACE, "--profile", "abacus"), "unknown profile 'abacus'"),
    ((TRACE, "--slo", "ttft=2"), "is no time limit"),
    ((TRACE, "--target", "95%"), "--target goes with --find-capacity"),
    ((TRACE, "--find-capacity", "--target", "120%"), "'120%' is no share"),
    ((TRACE, "--find-capacity", "--limit", "1"), "all requests arrive at once"),
    ((TRACE, "--start", "9999"), "no request arrives"),
    ((TRACE, "--scenario", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
    ((TRACE, "--out", "nowhere/f.json"), "there is no folder 'nowhere'"),
    ((TRACE, "--replicas", "0"), "0 is not in the range"),
    ((TRACE, "--policy", "llm_d+queue_weight"), "'queue_weight' is no new option=value"),
    ((TRACE, "--policy", "llm_d+kv_weight=1+kv_weight=2"), "'kv_weight=2' is no new"),
    ((TRACE, "--policy", "llm_d+weight=2"), "policy 'llm_d': has no option 'weight'"),
    ((TRACE, "--policy", "llm_d+kv_weight=much"), "option 'kv_weight' is 'much'; allowed: float"),
    ((TRACE, "--rates", "1,0"), "'1,0' is no list of factors like 0.5,1,2"),
    ((TRACE, "--rates", "1,x"), "'1,x' is no list of factors"),
    ((TRACE, "--rates", "1", "--find-capacity"), "--rates goes with neither --find-capacity"),
    ((TRACE, "--plot", "f.pdf"), "'f.pdf' does not end in .png or .svg"),
    ((TRACE, "--plot", "nowhere/f.png"), "there is no folder 'nowhere'"),
]


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES)
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, complaint, *arguments)


def test_replicas_must_be_as_many_as_the_scenario_has(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text("replicas: [{count: 3}]")
    complaint = "s.yaml: $.replicas: describes 3 replicas, --replicas asks for 4"
    assert_refused(capsys, complaint, TRACE, "--scenario", "s.yaml", "--replicas", "4")


def assert_refused(capsys, complaint, *arguments):
    assert run(["simulate", *arguments]) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert told.err.count("\n") == 1
    assert not told.out
