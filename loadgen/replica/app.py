"""The HTTP surface of a simulated replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from loadgen import tokens
from loadgen.replica import prompts
from loadgen.replica.bodies import DetokenizeBody, EmbeddingBody, TokenizeBody, decode
from loadgen.replica.embeddings import embedding
from loadgen.replica.faults import Change
from loadgen.replica.flavours.names import FLAVOURS
from loadgen.replica.gate import FAULTS_PATH, gate
from loadgen.replica.keys import FLAVOUR, REPLICA
from loadgen.replica.kv.paths import routes as kv_routes
from loadgen.replica.openai import chat_completions, completions, json_response
from loadgen.replica.refusal import Refusal
from loadgen.replica.scrape import Scrape

if TYPE_CHECKING:
    from loadgen.replica.simulated import SimulatedReplica

_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


def make_app(replica: SimulatedReplica) -> web.Application:
    """The application that serves ``replica``."""
    flavour = FLAVOURS[replica.settings.engine]()
    app = web.Application(middlewares=[gate], client_max_size=_MAX_BODY_BYTES)
    app[REPLICA] = replica
    app[FLAVOUR] = flavour
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat_completions),
            web.post("/v1/completions", completions),
            web.post("/v1/embeddings", _embeddings),
            web.get("/v1/models", _models),
            web.post("/tokenize", _tokenize),
            web.post("/detokenize", _detokenize),
            web.get("/health", _health),
            web.get("/metrics", Scrape().serve),
            web.get(FAULTS_PATH, _show_faults),
            web.post(FAULTS_PATH, _set_faults),
            web.delete(FAULTS_PATH, _clear_faults),
            *flavour.routes(),
            *kv_routes(),
        ]
    )
    return app


async def _health(request: web.Request) -> web.Response:
    return request.app[FLAVOUR].health(request.app[REPLICA])


async def _models(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    names = replica.settings.model_names
    entries = [_model(replica, name, None) for name in names]
    entries += [_model(replica, name, names[0]) for name in replica.settings.adapters]
    return json_response({"object": "list", "data": entries})


def _model(replica: SimulatedReplica, name: str, parent: str | None) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": replica.created,
        "owned_by": replica.settings.engine,
        "root": name,
        "parent": parent,
        "max_model_len": None if parent else replica.max_model_tokens,
        "permission": [],
    }


async def _tokenize(request: web.Request) -> web.Response:
    body = decode(await request.read(), TokenizeBody)
    if body.messages is not None:
        ids = prompts.of_chat(
            body.messages,
            add_generation_prompt=body.add_generation_prompt is not False,
            continue_final_message=bool(body.continue_final_message),
        )
    else:
        text = body.content if body.prompt is None else body.prompt
        if text is None:
            raise Refusal(400, "prompt or messages are required", param="prompt")
        ids = tokens.encode(text)
    return json_response(
        {
            "count": len(ids),
            "max_model_len": request.app[REPLICA].max_model_tokens,
            "tokens": ids,
            "token_strs": list(map(tokens.token_text, ids)) if body.return_token_strs else None,
        }
    )


async def _detokenize(request: web.Request) -> web.Response:
    body = decode(await request.read(), DetokenizeBody)
    if (stranger := tokens.out_of_vocabulary(body.tokens)) is not None:
        raise Refusal(400, f"Token id {stranger} is out of vocabulary", param="tokens")
    return json_response({"prompt": tokens.decode(body.tokens)})


async def _embeddings(request: web.Request) -> web.Response:
    replica = request.app[REPLICA]
    body = decode(await request.read(), EmbeddingBody)
    model = replica.find_model(body.model, strict=request.app[FLAVOUR].checks_model)
    if body.encoding_format not in {None, "float"}:
        raise Refusal(400, "encoding_format must be float", param="encoding_format")
    inputs = prompts.of_embedding(body.input)
    total = sum(map(len, inputs))
    return json_response(
        {
            "id": "embd-simulated",
            "object": "list",
            "created": replica.created,
            "model": model,
            "data": [
                {"index": index, "object": "embedding", "embedding": embedding(ids)}
                for index, ids in enumerate(inputs)
            ],
            "usage": {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0},
        }
    )


async def _show_faults(request: web.Request) -> web.Response:
    return json_response(request.app[REPLICA].faults.state())


async def _set_faults(request: web.Request) -> web.Response:
    try:
        change = msgspec.json.decode(await request.read(), type=Change)
    except msgspec.DecodeError as error:
        raise Refusal(400, str(error)) from error
    request.app[REPLICA].change_faults(change)
    return await _show_faults(request)


async def _clear_faults(request: web.Request) -> web.Response:
    healed = Change(hang=None, slow=None, errors=None, cut=None, metrics=None, health=None)
    request.app[REPLICA].change_faults(healed)
    return await _show_faults(request)
