"""The engines' own generation endpoints: ``/generate`` of SGLang and of TGI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen import tokens
from loadgen.replica import prompts
from loadgen.replica.bodies import Sampling, decode
from loadgen.replica.chunks import DONE, ChunkOptions
from loadgen.replica.keys import REPLICA
from loadgen.replica.openai import Shape, accept, respond

if TYPE_CHECKING:
    from aiohttp import web

    from loadgen.replica.job import Choice, Job

_PLAIN = ChunkOptions()


class SglangParameters(msgspec.Struct, kw_only=True):
    """``sampling_params`` of SGLang."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    n: int | None = None


class SglangBody(msgspec.Struct, kw_only=True):
    """``POST /generate`` of SGLang."""

    text: str | None = None
    input_ids: list[int] | None = None
    sampling_params: SglangParameters | None = None
    stream: bool | None = None
    rid: str | None = None
    bootstrap_host: str | None = None
    bootstrap_port: int | None = None
    bootstrap_room: int | None = None


class TgiParameters(msgspec.Struct, kw_only=True):
    """``parameters`` of TGI."""

    max_new_tokens: int | None = None
    stop: list[str] | None = None
    details: bool | None = None


class TgiBody(msgspec.Struct, kw_only=True):
    """``POST /generate`` and ``/generate_stream`` of TGI."""

    inputs: str
    parameters: TgiParameters | None = None
    stream: bool | None = None


async def sglang_generate(request: web.Request) -> web.StreamResponse:
    """``POST /generate`` of SGLang, of a text or of token ids."""
    replica = request.app[REPLICA]
    body = decode(await request.read(), SglangBody)
    wanted = body.sampling_params or SglangParameters()
    prompt = prompts.of_completion(
        body.text if body.input_ids is None else list[str | int | list[int]](body.input_ids)
    )
    sampling = Sampling(
        min_tokens=wanted.min_new_tokens,
        stop=wanted.stop,
        stop_token_ids=wanted.stop_token_ids,
        ignore_eos=wanted.ignore_eos,
        bootstrap_host=body.bootstrap_host,
        bootstrap_port=body.bootstrap_port,
        bootstrap_room=body.bootstrap_room,
    )
    job = accept(replica, request, sampling, prompt, asked=wanted.max_new_tokens, default=128)
    return await respond(
        request, replica, job, _SGLANG, _PLAIN, streams=bool(body.stream), own_id=body.rid
    )


async def tgi_generate(request: web.Request) -> web.StreamResponse:
    """``POST /generate`` of TGI."""
    return await _tgi(request, streams=False)


async def tgi_generate_stream(request: web.Request) -> web.StreamResponse:
    """``POST /generate_stream`` of TGI."""
    return await _tgi(request, streams=True)


async def _tgi(request: web.Request, *, streams: bool) -> web.StreamResponse:
    replica = request.app[REPLICA]
    body = decode(await request.read(), TgiBody)
    wanted = body.parameters or TgiParameters()
    sampling = Sampling(stop=wanted.stop, include_stop_str_in_output=True)
    prompt = prompts.of_completion(body.inputs)
    job = accept(replica, request, sampling, prompt, asked=wanted.max_new_tokens, default=100)
    shape = _TGI if wanted.details else _TGI_BARE
    return await respond(request, replica, job, shape, _PLAIN, streams=streams)


# ----- SGLang


def _sglang_meta(job: Job, response_id: str, choice: Choice, generated: int) -> dict[str, object]:
    answer = choice.answer
    reason: dict[str, object] | None = None
    if generated == len(answer.tokens):
        reason = {"type": answer.finish_reason}
        if answer.finish_reason == "length":
            reason["length"] = generated
        elif answer.stop_reason is not None:
            reason["matched"] = answer.stop_reason
    return {
        "id": response_id,
        "finish_reason": reason,
        "prompt_tokens": len(job.prompt),
        "completion_tokens": generated,
        "cached_tokens": job.cached_tokens,
        "weight_version": "default",
    }


def _sglang_answer(job: Job, response_id: str, choice: Choice, generated: int) -> dict[str, object]:
    answer = choice.answer
    return {
        "text": "".join(answer.pieces[:generated]),
        "output_ids": answer.tokens[:generated],
        "meta_info": _sglang_meta(job, response_id, choice, generated),
    }


def _sglang_whole(job: Job, response_id: str, _: int, __: ChunkOptions) -> dict[str, object]:
    choice = job.choices[0]
    return _sglang_answer(job, response_id, choice, len(choice.answer.tokens))


class _SglangChunks:
    """Each event holds the whole text so far, as SGLang's do by default."""

    def __init__(self, job: Job, response_id: str, _: int, __: ChunkOptions) -> None:
        self._job = job
        self._id = response_id

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def token(self, choice: Choice, index: int) -> bytes:
        """The event of one token."""
        answer = _sglang_answer(self._job, self._id, choice, index + 1)
        return b"data: " + msgspec.json.encode(answer) + b"\n\n"

    def closing(self) -> bytes:
        """The end mark."""
        return DONE


_SGLANG = Shape("", _SglangChunks, _sglang_whole)


# ----- TGI


def _tgi_reason(choice: Choice) -> str:
    answer = choice.answer
    if answer.finish_reason == "length":
        return "length"
    return "eos_token" if answer.stop_reason is None else "stop_sequence"


def _tgi_token(choice: Choice, index: int) -> dict[str, object]:
    token = choice.answer.tokens[index]
    special = token == tokens.Special.END_OF_TEXT
    text = tokens.token_text(token)
    return {"id": token, "text": text, "logprob": -0.5, "special": special}


def _tgi_bare(job: Job, _: str, __: int, ___: ChunkOptions) -> dict[str, object]:
    return {"generated_text": "".join(job.choices[0].answer.pieces)}


def _tgi_whole(job: Job, _: str, __: int, ___: ChunkOptions) -> dict[str, object]:
    choice = job.choices[0]
    generated = len(choice.answer.tokens)
    return {
        "generated_text": "".join(choice.answer.pieces),
        "details": {
            "finish_reason": _tgi_reason(choice),
            "generated_tokens": generated,
            "seed": None,
            "prefill": [],
            "tokens": [_tgi_token(choice, index) for index in range(generated)],
        },
    }


class _TgiChunks:
    """One token an event; the last one holds the whole text."""

    def __init__(self, job: Job, _: str, __: int, ___: ChunkOptions) -> None:
        self._job = job

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def token(self, choice: Choice, index: int) -> bytes:
        """The event of one token."""
        generated = index + 1
        event: dict[str, object] = {
            "index": generated,
            "token": _tgi_token(choice, index),
            "generated_text": None,
            "details": None,
        }
        if generated == len(choice.answer.tokens):
            event["generated_text"] = "".join(choice.answer.pieces)
            event["details"] = {
                "finish_reason": _tgi_reason(choice),
                "generated_tokens": generated,
                "input_length": len(self._job.prompt),
                "seed": None,
            }
        return b"data:" + msgspec.json.encode(event) + b"\n\n"

    def closing(self) -> bytes:
        """Nothing: TGI's own stream has no end mark."""
        return b""


_TGI = Shape("", _TgiChunks, _tgi_whole)
_TGI_BARE = Shape("", _TgiChunks, _tgi_bare)
