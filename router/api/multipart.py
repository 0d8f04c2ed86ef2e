"""The few fields that the router takes from a multipart form (audio uploads)."""

from __future__ import annotations

import re

from policies.base import RequestFacts
from router.api.body import MalformedBodyError
from router.api.prompt import BYTES_PER_TOKEN

_BOUNDARY = re.compile(rb'(?i)multipart/form-data\b.*?;[ \t]*boundary=(?:"([^"]+)"|([^\s;]+))')
_NAME = re.compile(rb'(?i)content-disposition:[^\r\n]*?[; \t]name=(?:"([^"]*)"|([^\s;]+))')
_MAX_VALUE_BYTES = 1024


def understand_multipart(
    body: bytes, content_type: bytes | None, session: str | None
) -> RequestFacts:
    """Read ``model``, ``stream`` and ``user`` of a form; the file parts are not looked at.

    Raises:
        MalformedBodyError: It is no multipart form.
    """
    values = {
        name: body[span].decode(errors="replace") for name, span in _spans(body, content_type)
    }
    return RequestFacts(
        model=values.get(b"model"),
        prompt_tokens=len(body) // BYTES_PER_TOKEN // 100,
        session=session or values.get(b"user"),
        streamed=values.get(b"stream", "").lower() == "true",
    )


def with_form_model(body: bytes, content_type: bytes | None, model: str) -> bytes:
    """``body`` with the value of its field ``model`` replaced; all else stays byte for byte.

    Raises:
        MalformedBodyError: It is no multipart form.
    """
    for name, span in reversed(_spans(body, content_type)):
        if name == b"model":
            body = body[: span.start] + model.encode() + body[span.stop :]
    return body


def _spans(body: bytes, content_type: bytes | None) -> list[tuple[bytes, slice]]:
    """The names of the form's short fields, and where in ``body`` their values stand."""
    match = _BOUNDARY.match(content_type or b"")
    if match is None:
        msg = "The body is not multipart/form-data with a boundary."
        raise MalformedBodyError(msg)
    delimiter = b"--" + (match[1] or match[2])
    found: list[tuple[bytes, slice]] = []
    at = body.find(delimiter)
    if at < 0:
        msg = "The multipart body does not hold its boundary."
        raise MalformedBodyError(msg)
    while at >= 0:
        start = at + len(delimiter)
        at = body.find(b"\r\n" + delimiter, start)
        if at < 0:
            break
        head_end = body.find(b"\r\n\r\n", start, at)
        if head_end >= 0 and at - head_end <= _MAX_VALUE_BYTES:
            name = _NAME.search(body, start, head_end)
            if name is not None:
                found.append((name[1] or name[2] or b"", slice(head_end + 4, at)))
        at += 2
    return found
