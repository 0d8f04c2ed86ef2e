"""Answers of the admin plane: plain data, and errors in the shape that clients know."""

from __future__ import annotations

import msgspec
from aiohttp import web


def json_answer(value: object, status: int = 200) -> web.Response:
    """Plain data as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


def error_answer(status: int, code: str, message: str) -> web.Response:
    """An error.

    Args:
        status: Of HTTP.
        code: What went wrong, for programs.
        message: The same for people, in a sentence.
    """
    detail = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json_answer({"error": detail}, status)
