"""Whole replays against a server that answers as scripted."""

from __future__ import annotations

import asyncio

import pytest

from loadgen.replay.client import ServerError
from loadgen.replay.options import ReplayOptions
from loadgen.replay.report import dump_report, load_report
from loadgen.replay.run import Tally, run
from loadgen.trace.request import Trace, TraceRequest
from policies.slo import Slo
from tests.fakes.scripted_server import (
    DONE,
    LAST_CHUNK,
    chunk,
    event,
    head,
    prompt_tokens_of,
    text_of,
    token,
    whole_answer,
)

DEADLINE_S = 20


def trace_of(*rows):
    """Rows are (arrival_s, prompt_tokens, output_tokens[, more])."""
    return Trace.of(
        "t",
        [
            TraceRequest(
                arrival_s=arrival_s, prompt_tokens=prompt, output_tokens=output, **dict(*more)
            )
            for arrival_s, prompt, output, *more in rows
        ],
    )


async def replay(server, trace, **options):
    async with asyncio.timeout(DEADLINE_S):
        return await run(trace, ReplayOptions(url=server.url, **options))


def answer_with(*parts):
    """A script that sends a chunked head, these bytes, and closes."""

    async def answer(_request, writer):
        writer.write(head() + b"".join(parts))
        return False

    return answer


async def test_figures_of_a_run_in_which_all_goes_well(server):
    async def answer(request, writer):
        tokens = prompt_tokens_of(request)
        writer.write(whole_answer(request, b"r%d:1" % (tokens % 2), cached_tokens=tokens // 2))

    server.answer = answer
    report = await replay(server, trace_of((0, 10, 4), (0.01, 21, 1), (0.02, 30, 7)))
    counts = report.requests
    assert (counts.planned, counts.sent, counts.succeeded, counts.failed) == (3, 3, 3, 0)
    assert report.model == "sim"
    assert (report.ttft_s.count, report.e2e_s.count) == (3, 3)
    assert report.tpot_s.count == 2  # an answer of one token has none
    assert report.itl_s.count == 3 + 0 + 6
    assert (report.goodput.met, report.goodput.share) == (3, 1.0)
    assert [(r.name, r.requests, r.output_tokens) for r in report.replicas] == [
        ("r0:1", 2, 11),
        ("r1:1", 1, 1),
    ]
    tokens = report.tokens
    assert (tokens.prompt_tokens_wanted, tokens.prompt_tokens_reported) == (61, 61)
    assert (tokens.output_tokens_wanted, tokens.output_tokens_reported) == (12, 12)
    assert tokens.cached_share == pytest.approx(30 / 61)
    assert report.errors == []
    assert load_report(dump_report(report)) == report


async def test_what_is_sent_follows_the_trace(server):
    trace = trace_of(
        (0, 1500, 3, {"hash_ids": (1, 2, 3)}),
        (0.01, 1100, 0, {"hash_ids": (1, 2, 9), "session": "user-7"}),
    )
    await replay(server, trace, model="other", salt="s")
    first, second = sorted(server.requests, key=lambda request: -len(text_of(request)))
    assert first == {
        "model": "other",
        "messages": first["messages"],
        "max_tokens": 3,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (second["user"], second["max_tokens"]) == ("user-7", 1)
    assert (prompt_tokens_of(first), prompt_tokens_of(second)) == (1500, 1100)
    assert text_of(first).split()[:1024] == text_of(second).split()[:1024]
    assert all("authorization" not in sent.lower() for sent in server.heads)


async def test_completions_and_a_bearer_token(server):
    report = await replay(
        server, trace_of((0, 40, 3)), endpoint="completions", api_key="secret-7", salt="s"
    )
    assert report.requests.succeeded == 1
    assert server.heads[0].startswith("POST /v1/completions ")
    assert "Authorization: Bearer secret-7" in server.heads[0]
    assert "prompt" in server.requests[0]
    assert b"secret-7" not in dump_report(report)


async def test_the_same_salt_sends_the_same_prompts(server):
    for salt in ("a", "a", "b"):
        await replay(server, trace_of((0, 50, 1)), salt=salt)
    first, again, other = map(text_of, server.requests)
    assert first == again != other


async def test_bodies_above_a_mebibyte_go_through(server):
    report = await replay(server, trace_of((0, 250_000, 1)))
    assert report.requests.succeeded == 1
    assert prompt_tokens_of(server.requests[0]) == 250_000


async def test_the_loop_is_open(server):
    """A server that answers nobody until all have come gets them all nevertheless."""
    all_came = asyncio.Event()

    async def answer(request, writer):
        if len(server.requests) == 5:
            all_came.set()
        await all_came.wait()
        writer.write(whole_answer(request))

    server.answer = answer
    report = await replay(server, trace_of(*((n / 100, 5, 2) for n in range(5))))
    assert report.requests.succeeded == 5


async def test_speed_compresses_the_schedule_and_stretches_the_times(server):
    trace = trace_of((0, 5, 2), (100, 5, 2))
    report = await replay(server, trace, speed=1000)
    assert report.requests.succeeded == 2
    assert report.duration_s >= 100
    assert report.trace.duration_s == 100


class TestFailures:
    async def failure_of(self, server, **options):
        report = await replay(server, trace_of((0, 5, 3)), **options)
        assert (report.requests.succeeded, report.requests.failed) == (0, 1)
        assert (report.goodput.met, report.ttft_s) == (0, None)
        (error,) = report.errors
        assert error.count == 1
        return error.kind, error.example

    async def test_status(self, server):
        async def answer(_request, writer):
            body = b'{"error": {"message":\n "no replica"}}'
            writer.write(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )

        server.answer = answer
        assert await self.failure_of(server) == (
            "status 503",
            '{"error": {"message": "no replica"}}',
        )

    async def test_a_redirect_is_not_followed(self, server):
        async def answer(_request, writer):
            writer.write(b"HTTP/1.1 307 Away\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")

        server.answer = answer
        assert await self.failure_of(server) == ("status 307", "Away")

    @pytest.mark.parametrize(
        "parts",
        [
            (chunk(token()), LAST_CHUNK),
            (chunk(token()),),
            (chunk(token())[:-20],),
            (chunk(token(finish_reason="length")),),
        ],
        ids=["clean end", "no last chunk", "in mid-chunk", "finished, but no last chunk"],
    )
    async def test_truncated(self, server, parts):
        server.answer = answer_with(*parts)
        kind, _ = await self.failure_of(server)
        assert kind == "truncated"

    async def test_reset_in_mid_stream(self, server):
        async def answer(_request, writer):
            writer.write(head() + chunk(token()))
            await writer.drain()
            await asyncio.sleep(0)
            writer.transport.abort()
            return False

        server.answer = answer
        kind, _ = await self.failure_of(server)
        assert kind in {"truncated", "no_answer"}  # a reset may overtake what was sent before it

    async def test_error_event_inside_a_good_stream(self, server):
        failed = event({"error": {"message": "the replica failed", "code": 502}})
        server.answer = answer_with(chunk(token()), chunk(failed), LAST_CHUNK)
        assert await self.failure_of(server) == ("error_event", "the replica failed")

    async def test_error_event_before_the_connection_breaks(self, server):
        failed = event({"error": {"message": "the replica failed", "code": 502}})
        server.answer = answer_with(chunk(token()), chunk(failed))
        assert await self.failure_of(server) == ("error_event", "the replica failed")

    async def test_closed_without_an_answer(self, server):
        async def answer(_request, _writer):
            return False

        server.answer = answer
        kind, _ = await self.failure_of(server)
        assert kind == "no_answer"

    async def test_timeout(self, server):
        async def answer(_request, writer):
            writer.write(head() + chunk(token()))
            await asyncio.Event().wait()

        server.answer = answer
        kind, _ = await self.failure_of(server, timeout_s=0.3)
        assert kind == "timeout"

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            head() + chunk(b"data: {nonsense\n\n") + chunk(token()) + chunk(DONE) + LAST_CHUNK,
            head() + chunk(DONE) + LAST_CHUNK,
        ],
        ids=["no event stream", "no HTTP", "no JSON", "no token"],
    )
    async def test_bad_answers(self, server, answer):
        async def send(_request, writer):
            writer.write(answer)
            return False

        server.answer = send
        kind, _ = await self.failure_of(server)
        assert kind == "bad_answer"

    async def test_nobody_listens(self, server, unused_tcp_port):
        server.url = f"http://127.0.0.1:{unused_tcp_port}"
        assert await self.failure_of(server, model="m") == (
            "connect",
            f"127.0.0.1:{unused_tcp_port}: Connection refused",
        )


class TestForgiven:
    """What looks odd but is a whole answer."""

    @pytest.mark.parametrize(
        "parts",
        [
            (chunk(token(finish_reason="stop")), LAST_CHUNK),
            (chunk(token()), chunk(DONE)),
            (chunk(token().replace(b"\n", b"\r\n") + DONE.replace(b": ", b":")), LAST_CHUNK),
            (chunk(b": ping\n\n"), chunk(token()[:9]), chunk(token()[9:] + DONE), LAST_CHUNK),
        ],
        ids=["no [DONE]", "broken after [DONE]", "CRLF and no space", "comments and split events"],
    )
    async def test_whole_answers(self, server, parts):
        server.answer = answer_with(*parts)
        report = await replay(server, trace_of((0, 5, 1)))
        assert (report.requests.succeeded, report.errors) == (1, [])

    async def test_a_server_without_usage(self, server):
        server.answer = answer_with(chunk(token()), chunk(token()), chunk(DONE), LAST_CHUNK)
        report = await replay(server, trace_of((0, 5, 2)))
        assert (report.tokens.requests, report.tokens.cached_share) == (0, None)
        assert report.replicas[0].output_tokens == 2


async def test_failures_are_counted_by_kind_and_by_replica(server):
    async def answer(request, writer):
        if prompt_tokens_of(request) == 5:
            writer.write(head(b"bad:1") + chunk(token()) + LAST_CHUNK)
        else:
            writer.write(whole_answer(request, b"good:1"))

    server.answer = answer
    report = await replay(server, trace_of((0, 5, 1), (0, 6, 1), (0, 5, 1), (0, 6, 1)))
    assert [(e.kind, e.count) for e in report.errors] == [("truncated", 2)]
    assert [(r.name, r.requests, r.failed) for r in report.replicas] == [
        ("bad:1", 2, 2),
        ("good:1", 2, 0),
    ]
    assert (report.goodput.met, report.goodput.share) == (2, 0.5)


async def test_an_objective_that_nobody_can_meet(server):
    report = await replay(server, trace_of((0, 5, 2)), slo=Slo(ttft_s=1e-9))
    assert (report.requests.succeeded, report.goodput.met, report.goodput.rps) == (1, 0, 0)


async def test_stopping_cancels_what_is_open_and_reports_the_rest(server):
    gone = asyncio.Event()

    async def answer(request, writer):
        if prompt_tokens_of(request) == 6:
            writer.write(head() + chunk(token()))
            await writer.drain()
            stop.set()
            await writer.wait_closed()
            gone.set()
            return False
        writer.write(whole_answer(request))
        return True

    stop, tally = asyncio.Event(), Tally()
    server.answer = answer
    trace = trace_of((0, 5, 1), (0.05, 6, 9), (3600, 7, 1))
    options = ReplayOptions(url=server.url)
    async with asyncio.timeout(DEADLINE_S):
        report = await run(trace, options, stop=stop, tally=tally)
    counts = report.requests
    assert report.interrupted
    assert (counts.planned, counts.sent, counts.succeeded, counts.cancelled) == (3, 2, 1, 1)
    assert (tally.planned, tally.sent, tally.succeeded, tally.open) == (3, 2, 1, 1)


async def test_cancelling_a_run_leaves_nothing_behind(server):
    async def answer(_request, writer):
        writer.write(head() + chunk(token()))
        await asyncio.Event().wait()

    server.answer = answer
    before = asyncio.all_tasks()
    running = asyncio.create_task(run(trace_of((0, 5, 1)), ReplayOptions(url=server.url)))
    async with asyncio.timeout(DEADLINE_S):
        await server.saw(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert asyncio.all_tasks() - before - server.handlers == set()


@pytest.mark.parametrize(
    ("models", "complaint"),
    [(b'{"data": []}', "lists no model"), (b"<html>", "lists no model")],
)
async def test_a_server_that_lists_no_model(server, models, complaint):
    server.models = models
    with pytest.raises(ServerError, match=complaint):
        await replay(server, trace_of((0, 5, 1)))


async def test_a_server_that_is_not_there(server, unused_tcp_port):
    server.url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(ServerError, match=r"cannot be reached: .*Connection refused"):
        await replay(server, trace_of((0, 5, 1)))
