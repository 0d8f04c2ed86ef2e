import pytest

from router.admin.explained import ExplainPage, ToldDecision, ToldEstimate
from router.cli import explain, root
from router.cli.admin_client import DEFAULT_URL, RefusedError
from router.cli.verdict import verdict

BEST = ToldEstimate("r1", 0.1, 0.2, 3.0, 0.0, 512, 0.01, 0.094)
NEXT = ToldEstimate("r2", 0.35, 0.15, 3.0, 0.0, 0, 0.03, 0.14)
WORST = ToldEstimate("r3", 9.0, 0.2, 3.0, 1.0, 0, 0.5, 2.0)

LONG_VERDICT = (
    "It costs 0.094, the next best, r2, 0.140: 0.020 fewer objectives are expected to be missed,"
    " its queue is 250 ms shorter, its prefill is 50 ms longer."
)


def decision(estimates=(BEST, NEXT, WORST), **changed):
    fields = {
        "request_id": "id-1",
        "at": "2026-01-02T03:04:05.678+00:00",
        "model": "m",
        "prompt_tokens": 5000,
        "attempt": 1,
        "chosen": "r1",
        "reason": "least_cost",
        "candidates": 5,
        "held_s": 0.0,
        "ttft_s": 0.3,
        "e2e_s": 3.3,
        "seen_ttft_s": 0.31,
        "took_s": 3.5,
        "outcome": "200",
        "estimates": list(estimates),
    }
    return ToldDecision(**fields | changed)


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments, decisions=None):
        asked = []

        def ask(*question):
            asked.append(question)
            return ExplainPage("least_estimated_completion", 7, decisions or [decision()])

        monkeypatch.setattr(explain, "ask", ask)
        status = root.run(("explain", *arguments))
        out, err = capsys.readouterr()
        return status, " ".join(out.split()), err, asked

    return run


def test_a_request_is_explained_in_words_and_a_table(run):
    status, out, err, asked = run("a/b ü")
    assert (status, err) == (0, "")
    assert asked == [(DEFAULT_URL, "GET", "/explain/a%2Fb%20%C3%BC", ExplainPage)]
    assert out.startswith(
        "id-1, model m, 5000 prompt tokens, attempt 1 2026-01-02 03:04:05.678 UTC"
    )
    assert "sent to r1; candidates: 5; reason: least_cost." in out
    assert (
        "First token: expected after 300 ms, seen after 310 ms. End: expected after 3.30 s" in out
    )
    assert "seen after 3.50 s (200)." in out
    assert "candidate queue KV wait prefill decode cached harm cost" in out
    assert "r1 * 100 ms 0 ms 200 ms 3.00 s 512 0.010 0.094 r2 350 ms" in out
    assert "2 more candidates cost more." in out


def test_each_attempt_is_explained(run):
    again = decision(
        (), attempt=2, chosen="r2", model=None, ttft_s=None, seen_ttft_s=None, outcome=None,
        held_s=1.25, took_s=None, e2e_s=None, reason="turn",
    )  # fmt: skip
    _, out, _, _ = run("id-1", decisions=[decision(outcome="reset"), again])
    assert "(reset)" in out
    assert "id-1, no model, 5000 prompt tokens, attempt 2" in out
    assert "sent to r2 after 1.25 s in the router; " in out
    assert "seen after - (not yet)." in out


def test_the_last_ones_are_listed(run):
    _, out, _, asked = run("--last", "5", "--admin", "http://h:1")
    assert asked == [("http://h:1", "GET", "/explain?last=5", ExplainPage)]
    assert "id-1 03:04:05.678 5000 r1 least_cost 0 ms 300 ms / 310 ms 200" in out


@pytest.mark.parametrize("arguments", [(), ("id", "--last", "3")])
def test_one_of_both_must_be_given(run, arguments):
    status, out, err, asked = run(*arguments)
    assert (status, out, asked) == (2, "", [])
    assert err == (
        "pointsman: give either a REQUEST_ID or --last N; see `pointsman explain --help`\n"
    )


@pytest.mark.parametrize(
    ("admin", "says"),
    [
        (
            "http://127.0.0.1:1",
            "pointsman: no router can be reached at http://127.0.0.1:1 (connection refused); ",
        ),
        (
            "http+unix:///none",
            "pointsman: no router can be reached at http+unix:///none (no such file or directory",
        ),
        ("127.0.0.1:9090", "pointsman: Invalid value for --admin: '127.0.0.1:9090': "),
    ],
)
def test_a_router_that_is_not_there_is_one_line(capsys, admin, says):
    assert root.run(("explain", "--last", "1", "--admin", admin)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_a_refusal_is_one_line(monkeypatch, capsys):
    def ask(*_):
        raise RefusedError(404, "request_not_found", "The last 3 decisions hold none about it.")

    monkeypatch.setattr(explain, "ask", ask)
    assert root.run(("explain", "x")) == 2
    assert capsys.readouterr().err == "pointsman: The last 3 decisions hold none about it\n"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (decision(), LONG_VERDICT),
        (
            decision(chosen="r2"),
            "lec chose it although r1 costs less: least_cost.",
        ),
        (
            decision((BEST, ToldEstimate("r2", 0.1, 0.2, 3.0, 0.0, 512, 0.01, 0.1))),
            "It costs 0.094, the next best, r2, 0.100.",
        ),
        (
            decision((BEST, ToldEstimate("r2", 0.1, 0.2, 3.0, 0.0, 512, 0.01, 0.094))),
            "It costs no more than r2, and lec took it first.",
        ),
        (decision((BEST,), candidates=1), "It was the only candidate."),
        (decision((BEST,)), "lec estimated no other candidate."),
        (decision((), reason="turn"), "lec chose it for the reason 'turn'; it gave no estimates."),
        (
            decision((), reason="probe"),
            "It had been out of service, and this request was to show whether it is well again.",
        ),
        (
            decision(reason="fallback"),
            "The policy failed, so the replica with the fewest requests was taken.",
        ),
    ],
)
def test_the_verdict_says_why_the_winner_won(told, words):
    assert verdict(told, "lec") == words
