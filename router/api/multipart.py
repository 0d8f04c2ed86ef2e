"""The few fields that the router takes from a multipart form (audio uploads)."""

from __future__ import annotations

import re

from policies.base import RequestFacts
from router.api.body import BYTES_PER_TOKEN, MalformedBodyError

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
    match = _BOUNDARY.match(content_type or b"")
    if match is None:
        msg = "The body is not multipart/form-data with a boundary."
        raise MalformedBodyError(msg)
    fields = _fields(body, b"--" + (match[1] or match[2]))
    return RequestFacts(
        model=fields.get(b"model"),
        prompt_tokens=len(body) // BYTES_PER_TOKEN // 100,
        session=session or fields.get(b"user"),
        streamed=fields.get(b"stream", "").lower() == "true",
    )


def _fields(body: bytes, delimiter: bytes) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    at = body.find(delimiter)
    if at < 0:
        msg = "The multipart body does not hold its boundary."
        raise MalformedBodyError(msg)
    while at >= 0:
        start = at + len(delimiter)
        at = body.find(b"\r\n" + delimiter, start)
        head_end = body.find(b"\r\n\r\n", start, at if at >= 0 else len(body))
        if at >= 0 and head_end >= 0 and at - head_end <= _MAX_VALUE_BYTES:
            name = _NAME.search(body, start, head_end)
            if name is not None:
                value = body[head_end + 4 : at].decode(errors="replace")
                found[name[1] or name[2] or b""] = value
        if at >= 0:
            at += 2
    return found
