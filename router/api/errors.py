"""Error bodies in the shape that the client's library expects."""

from __future__ import annotations

import msgspec

from router.api.routes import Dialect

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(
    dialect: Dialect, status: int, code: str, message: str, param: str | None = None
) -> bytes:
    """The JSON body of an error answer.

    Args:
        dialect: Whose shape.
        status: The status that it goes with.
        code: Machine-readable reason (OpenAI's shape only).
        message: For people.
        param: The field of the request at fault (OpenAI's shape only).
    """
    fallback = "invalid_request_error" if status < 500 else "server_error"
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else fallback)
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
    kind = _OPENAI_TYPES.get(status, fallback)
    error = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def error_event(dialect: Dialect, code: str, message: str) -> bytes:
    """An error as a server-sent event, for a stream that broke; begins on a fresh line."""
    body = error_body(dialect, 502, code, message)
    name = b"event: error\n" if dialect is Dialect.ANTHROPIC else b""
    return b"\n\n" + name + b"data: " + body + b"\n\n"
