"""The OpenAI-compatible inference endpoints."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from aiohttp import web

from loadgen.replica import prompts, whole
from loadgen.replica.bodies import ChatBody, CompletionBody, Sampling, StreamOptions, decode
from loadgen.replica.chunks import ChatChunks, ChunkOptions, CompletionChunks
from loadgen.replica.gate import request_id
from loadgen.replica.job import Job, limits_of, make_job
from loadgen.replica.keys import FLAVOUR, REPLICA
from loadgen.replica.kv.dialects import part_of
from loadgen.replica.kv.legs import taking_part
from loadgen.replica.refusal import Refusal
from loadgen.replica.streams import TokenStream
from loadgen.replica.wire import BodyWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadgen.replica.chunks import Chunks
    from loadgen.replica.kv.legs import TakingPart
    from loadgen.replica.simulated import SimulatedReplica


class Shape(NamedTuple):
    """How an endpoint words its answers."""

    id_prefix: str
    chunks: Callable[[Job, str, int, ChunkOptions], Chunks]
    whole: Callable[[Job, str, int, ChunkOptions], dict[str, object]]


_FREE_FORM: Final = (None, "auto", "none", {"type": "text"})

CHAT = Shape("chatcmpl-", ChatChunks, whole.chat)
COMPLETION = Shape("cmpl-", CompletionChunks, whole.completion)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """``POST /v1/chat/completions``."""
    replica = request.app[REPLICA]
    body = decode(await request.read(), ChatBody)
    continues = bool(body.continue_final_message)
    generation_prompt = body.add_generation_prompt is not False
    prompt = body.prompt_token_ids or prompts.of_chat(
        body.messages,
        add_generation_prompt=generation_prompt,
        continue_final_message=continues,
    )
    _refuse_guided(body)
    asked = body.most_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    top = (body.top_logprobs or 0) if body.logprobs else None
    job = accept(replica, request, body, prompt, asked=asked, default=None)
    return await respond(
        request, replica, job, CHAT, _options(body, top), streams=bool(body.stream)
    )


async def completions(request: web.Request) -> web.StreamResponse:
    """``POST /v1/completions``."""
    replica = request.app[REPLICA]
    body = decode(await request.read(), CompletionBody)
    if body.suffix:
        raise Refusal(400, "suffix is not currently supported", param="suffix")
    if body.echo:
        raise Refusal(400, "echo is not simulated", param="echo")
    prompt = prompts.of_completion(body.prompt)
    default = 16 if body.max_tokens is msgspec.UNSET else None
    job = accept(replica, request, body, prompt, asked=body.most_tokens, default=default)
    options = _options(body, body.logprobs)
    return await respond(request, replica, job, COMPLETION, options, streams=bool(body.stream))


def accept(
    replica: SimulatedReplica,
    request: web.Request,
    body: Sampling,
    prompt: list[int],
    *,
    asked: int | None,
    default: int | None,
) -> Job:
    """Make the job of a request.

    Raises:
        Refusal: The request asks for what this replica has not, or what cannot be.
    """
    model = replica.find_model(body.model, strict=request.app[FLAVOUR].checks_model)
    limits = limits_of(body, asked, default, len(prompt), replica.max_model_tokens)
    if body.stream_options is not None and not body.stream:
        raise Refusal(400, "Stream options can only be defined when `stream=True`.")
    replica.statistics.max_tokens.observe(limits.most)
    replica.statistics.choices.observe(body.n or 1)
    return make_job(
        prompt,
        limits,
        body,
        model=model,
        language=replica.language(model),
        block=replica.settings.profile.block_tokens,
        part=part_of(replica.settings, body, request_id(request)),
    )


async def respond(
    request: web.Request,
    replica: SimulatedReplica,
    job: Job,
    shape: Shape,
    options: ChunkOptions,
    *,
    streams: bool,
    own_id: str | None = None,
) -> web.StreamResponse:
    """Run ``job`` and send its answer; aborts it when the client leaves.

    Args:
        request: What is answered.
        replica: Who answers.
        job: The answer.
        shape: How it is worded.
        options: What of it is shown.
        streams: Whether it is streamed.
        own_id: The request's id, if its body names one.
    """
    header_id = own_id or request_id(request)
    response_id = shape.id_prefix + header_id
    created = int(datetime.now(tz=UTC).timestamp())
    replica.jobs.add(job)
    try:
        async with taking_part(replica, job) as leg:
            if streams:
                chunks = shape.chunks(job, response_id, created, options)
                return await stream(request, replica, leg, chunks, header_id)
            job.start(replica.driver)
            await job.done
            await leg.computed()
            answer = shape.whole(job, response_id, created, options)
            leg.tell(answer, own_url(request))
            response = json_response(answer)
            response.headers["X-Request-Id"] = header_id
            return response
    finally:
        job.abort(replica.driver)
        replica.jobs.discard(job)


async def stream(
    request: web.Request,
    replica: SimulatedReplica,
    leg: TakingPart,
    chunks: Chunks,
    header_id: str,
) -> web.StreamResponse:
    """Send the answer as server-sent events."""
    job, flavour = leg.job, request.app[FLAVOUR]
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Request-Id": header_id}
    )
    writer = BodyWriter()
    sink = TokenStream(writer, chunks, flavour.error, replica.draw_cut())
    job.sink = sink
    if flavour.early_headers:
        await writer.open(request, response)
        job.start(replica.driver)
    else:
        job.start(replica.driver)
        await writer.first_write
        await writer.open(request, response)
    await job.done
    await leg.computed()
    if sink.cut_off:
        await asyncio.Event().wait()  # until the client has left, which cancels us
    sink.close()
    await response.write_eof()
    return response


def own_url(request: web.Request) -> str:
    """Where the replica is, as its client reached it."""
    transport = request.transport
    host, port, *_ = transport.get_extra_info("sockname") if transport is not None else ("", 0)
    return f"http://{host}:{port}"


def json_response(content: object, status: int = 200) -> web.Response:
    """A response of JSON."""
    return web.Response(
        body=msgspec.json.encode(content), status=status, content_type="application/json"
    )


def _options(body: Sampling, top_logprobs: int | None) -> ChunkOptions:
    stream_options = body.stream_options or StreamOptions()
    return ChunkOptions(
        include_usage=bool(stream_options.include_usage),
        continuous_usage=bool(stream_options.continuous_usage_stats),
        token_ids=bool(body.return_token_ids),
        top_logprobs=top_logprobs,
    )


def _refuse_guided(body: ChatBody) -> None:
    """Answers that must have a form cannot be simulated."""
    for field, value in (
        ("response_format", body.response_format),
        ("tool_choice", body.tool_choice),
    ):
        if value not in _FREE_FORM:
            raise Refusal(400, f"{field} {value!r} is not simulated", param=field)
