"""From outcomes to figures, by numbers that can be checked by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from loadgen.quantiles import Distribution, nearest_rank
from loadgen.replay.figures import Measured, report_of
from loadgen.replay.options import ReplayOptions
from loadgen.replay.outcome import Failure, Outcome
from loadgen.replay.report import LATE_LIMIT_S
from loadgen.trace.request import Trace, TraceRequest
from policies.slo import Slo


def outcome_of(number, *, sent_s=0.0, ttft_s=0.1, e2e_s=1.0, tokens=10, late_s=0.0, **more):
    return Outcome(
        number=number,
        prompt_tokens=100,
        output_tokens=10,
        scheduled_s=sent_s - late_s,
        sent_s=sent_s,
        ended_s=sent_s + e2e_s,
        first_token_s=sent_s + ttft_s,
        generated_tokens=tokens,
        **more,
    )


def report_on(*outcomes, speed=1.0, slo=None, gaps_s=(), loop_lags_s=(0.0,), cancelled=0):
    requests = [TraceRequest(arrival_s=n, prompt_tokens=100, output_tokens=10) for n in range(9)]
    options = ReplayOptions(url="http://h", speed=speed, slo=slo or Slo(ttft_s=2, tpot_s=0.06))
    measured = Measured(
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        model="m",
        interrupted=False,
        outcomes=outcomes,
        cancelled=cancelled,
        gaps_s=gaps_s,
        loop_lags_s=loop_lags_s,
    )
    return report_of(Trace.of("t", requests), options, measured)


def test_nearest_rank_quantiles_are_values_that_were_measured():
    ordered = list(range(1, 101))
    assert [nearest_rank(ordered, q) for q in (0, 0.5, 0.9, 0.99, 1)] == [1, 50, 90, 99, 100]
    assert nearest_rank([7], 0.5) == nearest_rank([7], 0.99) == 7
    assert Distribution.of([]) is None
    assert Distribution.of([3, 1, 2]) == Distribution(count=3, mean=2, p50=2, p90=3, p99=3, max=3)


def test_times_of_a_request():
    report = report_on(outcome_of(0, ttft_s=0.25, e2e_s=1.15, tokens=10), gaps_s=[0.1] * 9)
    assert report.ttft_s.p50 == pytest.approx(0.25)
    assert report.e2e_s.p50 == pytest.approx(1.15)
    assert report.tpot_s.p50 == pytest.approx(0.1)
    assert report.itl_s.count == 9
    assert report.started == "2026-01-02T03:04:05+00:00"


def test_rates_count_from_the_first_sending_to_the_last_end():
    report = report_on(
        outcome_of(0, sent_s=5, e2e_s=0.5), outcome_of(1, sent_s=8, e2e_s=1, ttft_s=0.9)
    )
    assert report.duration_s == pytest.approx(4)
    assert report.throughput.requests_rps == pytest.approx(0.5)
    assert report.throughput.output_tokens_per_s == pytest.approx(5)
    assert report.throughput.prompt_tokens_per_s == pytest.approx(50)


def test_goodput_wants_every_limit_kept_and_no_failure():
    report = report_on(
        outcome_of(0, e2e_s=0.4),
        outcome_of(1, ttft_s=2.5, e2e_s=2.6),
        outcome_of(2, e2e_s=1.0),
        outcome_of(3, e2e_s=0.4, failure=Failure.TRUNCATED),
        outcome_of(4, ttft_s=1, e2e_s=1, tokens=1),
    )
    assert (report.goodput.met, report.goodput.share) == (2, 0.4)
    assert report.goodput.rps == pytest.approx(2 / 2.6)


def test_speed_turns_times_into_those_of_the_model():
    slow = outcome_of(0, sent_s=1, ttft_s=0.3, e2e_s=0.5, late_s=0.02)
    report = report_on(slow, speed=10, gaps_s=[0.02])
    assert report.ttft_s.p50 == pytest.approx(3)
    assert report.itl_s.p50 == pytest.approx(0.2)
    assert report.duration_s == pytest.approx(5)
    assert report.client.send_lateness_s.p50 == pytest.approx(0.2)
    assert report.goodput.met == 0
    assert report.client.too_slow


@pytest.mark.parametrize(
    ("late_s", "lag_s", "too_slow"),
    [(0.0, 0.0, False), (LATE_LIMIT_S * 1.1, 0.0, True), (0.0, LATE_LIMIT_S * 1.1, True)],
)
def test_a_late_client_is_told_of(late_s, lag_s, too_slow):
    report = report_on(outcome_of(0, late_s=late_s), loop_lags_s=[lag_s])
    assert report.client.too_slow is too_slow


def test_replicas_and_errors():
    report = report_on(
        outcome_of(0, replica="a"),
        outcome_of(1, replica="b", ttft_s=0.5),
        outcome_of(2, replica="b", failure=Failure.STATUS, status=503, detail="busy"),
        outcome_of(3, failure=Failure.STATUS, status=500, detail="oh"),
        outcome_of(4, failure=Failure.STATUS, status=503, detail="later"),
    )
    assert [(r.name, r.requests, r.share, r.failed) for r in report.replicas] == [
        ("", 2, 0.4, 2),
        ("a", 1, 0.2, 0),
        ("b", 2, 0.4, 1),
    ]
    assert report.replicas[0].ttft_p50_s is None
    assert report.replicas[2].ttft_p99_s == pytest.approx(0.5)
    assert [(e.kind, e.count, e.example) for e in report.errors] == [
        ("status 503", 2, "busy"),
        ("status 500", 1, "oh"),
    ]


def test_an_empty_run():
    report = report_on(cancelled=2, loop_lags_s=())
    assert (report.requests.sent, report.requests.cancelled, report.duration_s) == (2, 2, 0)
    assert (report.ttft_s, report.goodput.share, report.goodput.rps) == (None, 0, 0)
    assert (report.replicas, report.client.too_slow) == ([], False)
