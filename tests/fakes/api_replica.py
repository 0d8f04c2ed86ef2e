"""Canned answers in the shapes of OpenAI's and Anthropic's APIs, for tests with real clients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.fakes.raw_replica import chunked, http

if TYPE_CHECKING:
    from tests.fakes.raw_replica import Exchange

JSON = "Content-Type: application/json"
WORDS = ["The ", "points ", "are ", "set. ", "Zürich, ", "東京, ", "🚂."]
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
RATE_LIMITED = {"error": {"message": "slow down", "type": "rate_limit_error", "code": "busy"}}


async def answer(exchange: Exchange) -> None:
    """Answer by the path, and by what the body asks for."""
    body = await exchange.read_body()
    path = exchange.request.target.partition(b"?")[0].decode()
    if path == "/v1/audio/transcriptions":
        exchange.send(_json({"text": f"{len(body)} bytes"}))
        return
    asked = json.loads(body)
    if asked.get("user") == "limited" or asked.get("metadata", {}).get("user_id") == "limited":
        exchange.send(_limited(path))
    elif asked.get("stream"):
        await _stream(exchange, path, asked)
    else:
        exchange.send(_json(_whole(path, asked)))


def _json(value: dict[str, Any], status: str = "200 OK", *fields: str) -> bytes:
    return http(status, json.dumps(value).encode(), JSON, *fields)


def _limited(path: str) -> bytes:
    body: dict[str, Any] = RATE_LIMITED
    if path == "/v1/messages":
        body = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    return _json(body, "429 Too Many Requests", "Retry-After: 0", "x-ratelimit-remaining: 0")


def _whole(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    model = asked["model"]
    base = {"id": "x-1", "created": 1764000000, "model": model, "usage": USAGE}
    if path == "/v1/chat/completions":
        message = {"role": "assistant", "content": TEXT}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return base | {"object": "chat.completion", "choices": [choice]}
    if path == "/v1/completions":
        choice = {"index": 0, "text": TEXT, "finish_reason": "stop"}
        return base | {"object": "text_completion", "choices": [choice]}
    if path == "/v1/embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]
        return base | {"object": "list", "data": data}
    if path == "/v1/responses":
        return _response(model)
    assert path == "/v1/messages", path
    return _message(model) | {"content": [{"type": "text", "text": TEXT}]}


def _response(model: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": TEXT, "annotations": []}
    output = {"type": "message", "id": "m-1", "role": "assistant", "status": "completed"}
    return {
        "id": "r-1",
        "object": "response",
        "created_at": 1764000000,
        "model": model,
        "status": "completed",
        "output": [output | {"content": [part]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def _message(model: str) -> dict[str, Any]:
    return {
        "id": "msg-1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }


async def _stream(exchange: Exchange, path: str, asked: dict[str, Any]) -> None:
    exchange.send(
        http(
            "200 OK",
            b"",
            "Content-Type: text/event-stream",
            "Transfer-Encoding: chunked",
            length=False,
        )
    )
    events = _message_events(asked["model"]) if path == "/v1/messages" else _events(path, asked)
    for event in events:
        exchange.send(chunked(event, end=b""))
    exchange.send(b"0\r\n\r\n")


def _events(path: str, asked: dict[str, Any]) -> list[bytes]:
    chat = path == "/v1/chat/completions"
    kind = "chat.completion.chunk" if chat else "text_completion"
    base = {"id": "x-1", "object": kind, "created": 1764000000, "model": asked["model"]}
    events = []
    for word in WORDS:
        piece = {"delta": {"content": word}} if chat else {"text": word}
        events.append(base | {"choices": [{"index": 0, "finish_reason": None} | piece]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        events.append(base | {"choices": [], "usage": USAGE})
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [
        b"data: [DONE]\n\n"
    ]


def _message_events(model: str) -> list[bytes]:
    start = {"type": "content_block_start", "index": 0}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(model)},
        start | {"content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    events += [
        {"type": "content_block_stop", "index": 0},
        stop | {"usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
