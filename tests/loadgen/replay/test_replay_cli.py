"""The command: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadgen.replay.cli import command
from loadgen.replay.report import load_report
from router.cli.root import run
from tests.fakes.scripted_server import LAST_CHUNK, chunk, head, prompt_tokens_of, text_of, token

MOONCAKE = "".join(
    f'{{"timestamp": {at}, "input_length": 700, "output_length": 3, "hash_ids": [0, {n}]}}\n'
    for n, at in enumerate([0, 0, 0, 40, 40, 80], start=1)
)


@pytest.fixture
def trace_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(MOONCAKE)
    return str(path)


def invoke(*arguments):
    return CliRunner().invoke(command, arguments, prog_name="pointsman replay")


def test_a_replay_prints_a_table_and_writes_a_report(server_thread, trace_file, tmp_path):
    out = tmp_path / "report.json"
    url = server_thread.server.url
    result = invoke(trace_file, "--url", f"{url}/v1/", "--jitter", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "requests sent" in result.output
    assert "r1:1" in result.output
    report = load_report(out.read_bytes())
    assert report.command == f"pointsman replay {trace_file} --url {url}/v1/ --jitter --out {out}"
    assert report.url == url
    assert report.requests.succeeded == 6
    assert report.trace.changes[0].startswith("jitter (seed 0): 5 requests")


def test_what_the_options_do_to_the_trace(server_thread, trace_file, tmp_path):
    out = tmp_path / "report.json"
    result = invoke(
        *(trace_file, "--url", server_thread.server.url, "--out", str(out)),
        *("--start", "0.04", "--duration", "0.05", "--limit", "2", "--rate-scale", "2"),
        *("--max-input-tokens", "600", "--max-output-tokens", "2", "--salt", "s"),
        *("--endpoint", "completions", "--model", "m", "--slo", "ttft=9s", "--timeout", "30"),
    )
    assert result.exit_code == 0, result.output
    requests = server_thread.server.requests
    assert [prompt_tokens_of(request) for request in requests] == [600, 600]
    assert {request["max_tokens"] for request in requests} == {2}
    assert {request["model"] for request in requests} == {"m"}
    assert text_of(requests[0]).split()[:512] == text_of(requests[1]).split()[:512]
    report = load_report(out.read_bytes())
    assert (report.slo, report.timeout_s, report.salt) == ("ttft=9s", 30, "s")
    assert report.trace.changes == [
        "only arrivals from 0.04 s to 0.09 s",
        "only the first 2 requests",
        "2 prompts cut to 600 tokens",
        "2 answers cut to 2 tokens",
        "arrivals 2 times as fast",
    ]


def test_volleys_are_told_of(server_thread, trace_file):
    result = invoke(trace_file, "--url", server_thread.server.url)
    assert "arrive in volleys" in result.output
    spread = invoke(trace_file, "--url", server_thread.server.url, "--jitter")
    assert "arrive in volleys" not in spread.output


def test_failed_requests_make_it_exit_1(server_thread, trace_file):
    async def answer(_request, writer):
        writer.write(head() + chunk(token()) + LAST_CHUNK)

    server_thread.server.answer = answer
    result = invoke(trace_file, "--url", server_thread.server.url)
    assert result.exit_code == 1
    assert "truncated" in result.output


def test_a_bearer_token_comes_from_the_environment(server_thread, trace_file, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret-7")
    url = server_thread.server.url
    assert invoke(trace_file, "--url", url, "--api-key-env", "SOME_KEY").exit_code == 0
    assert "Authorization: Bearer secret-7" in server_thread.server.heads[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "name one trace: a file, or one of azure-code"),
        (("a", "b"), "name one trace"),
        (("nowhere",), "nowhere: no such file, and no trace has that name"),
        (("bimodal:rate=x",), "bimodal:rate=x: Expected `float`"),
        (("bimodal", "--start", "1e9"), "no request arrives"),
        (("bimodal", "--rate-scale", "0"), "0.0 is not in the range x>0"),
        (("bimodal", "--rate-scale", "nan"), "nan is no finite number"),
        (("bimodal", "--speed", "inf"), "inf is no finite number"),
        (("bimodal", "--slo", "ttft=2"), "ttft=2 is no time limit"),
        (("bimodal", "--url", "localhost:8080"), "'localhost:8080' is no base URL"),
        (("bimodal", "--url", "http://h:99999"), "is no base URL"),
        (("bimodal", "--url", "http://h/?a=b"), "is no base URL"),
        (("bimodal", "--limit", "0"), "0 is not in the range x>=1"),
        (("bimodal", "--out", "no/such/folder/r.json"), "there is no folder 'no/such/folder'"),
        (("bimodal", "--api-key-env", "NO_SUCH_KEY"), "the environment has no NO_SUCH_KEY"),
        (("bimodal", "--markdown"), "--markdown goes with --compare"),
        (("--compare",), "name the reports to compare"),
        (("--compare", "nowhere.json"), "nowhere.json: No such file or directory"),
    ],
)
def test_bad_input_makes_it_exit_2_and_says_why(arguments, complaint):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_server_that_is_not_there_makes_it_exit_2(trace_file, unused_tcp_port):
    result = invoke(trace_file, "--url", f"http://127.0.0.1:{unused_tcp_port}")
    assert result.exit_code == 2
    assert "cannot be reached" in result.output


def test_through_the_root_command_an_error_is_one_line(capsys):
    assert run(["replay", "nowhere"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("pointsman: nowhere: no such file, and no trace has that name (")
    assert output.err.count("\n") == 1


def test_a_report_that_cannot_be_written_makes_it_exit_2(server_thread, trace_file, tmp_path):
    out = tmp_path / "r.json"
    out.symlink_to(tmp_path / "gone" / "r.json")
    result = invoke(trace_file, "--url", server_thread.server.url, "--out", str(out))
    assert result.exit_code == 2
    assert f"{out}: No such file or directory" in result.output
    assert "requests sent" in result.output  # the figures are not lost with it


class TestCompare:
    @pytest.fixture
    def reports(self, server_thread, trace_file, tmp_path):
        paths = [str(tmp_path / name) for name in ("one.json", "two.json")]
        for path in paths:
            assert (
                invoke(
                    trace_file, "--url", server_thread.server.url, "--jitter", "--out", path
                ).exit_code
                == 0
            )
        return paths

    def test_side_by_side(self, reports):
        result = invoke("--compare", *reports)
        assert result.exit_code == 0
        assert "one" in result.output
        assert "two" in result.output
        assert "TTFT p99" in result.output
        assert "differ" not in result.output

    def test_as_markdown(self, reports):
        lines = invoke("--compare", "--markdown", *reports).output.splitlines()
        assert lines[0] == "|  | one | two |"
        assert lines[1] == "| --- | --- | --- |"
        assert "| requests sent | 6 | 6 |" in lines

    def test_reports_of_different_workloads_are_told_of(self, reports):
        other = json.loads(Path(reports[1]).read_text())
        other["trace"]["name"] = "another"
        other["client"]["too_slow"] = True
        Path(reports[1]).write_text(json.dumps(other))
        result = invoke("--compare", *reports)
        assert "the reports differ in trace: another, t.jsonl" in result.output
        assert "two: the client was too slow" in result.output

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("{}", "is no pointsman-replay-report"),
            ('{"format": "pointsman-replay-report", "version": 9}', "version 9, not"),
            ('{"format": "pointsman-replay-report", "version": 1}', "missing required field"),
        ],
    )
    def test_what_is_no_report_is_refused(self, tmp_path, text, complaint):
        path = tmp_path / "r.json"
        path.write_text(text)
        result = invoke("--compare", str(path))
        assert result.exit_code == 2
        assert complaint in result.output


def test_ctrl_c_reports_what_there_is_and_exits_130(server_thread, tmp_path):
    trace, out = tmp_path / "t.jsonl", tmp_path / "r.json"
    trace.write_text(
        '{"arrival_s": 0, "prompt_tokens": 5, "output_tokens": 1}\n'
        '{"arrival_s": 0.2, "prompt_tokens": 6, "output_tokens": 1}\n'
        '{"arrival_s": 3600, "prompt_tokens": 7, "output_tokens": 1}\n'
    )
    program = "from loadgen.replay.cli import command; command(prog_name='pointsman replay')"
    arguments = (str(trace), "--url", server_thread.server.url, "--out", str(out))
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        server_thread.wait_for_requests(2)
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors == ""  # no progress line where there is no terminal
    assert "interrupted" in output
    report = load_report(out.read_bytes())
    assert report.interrupted
    assert report.requests.planned == 3
    assert report.requests.sent == 2
