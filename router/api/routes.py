"""Which paths are served, and what is known of each.

Replicas have administration endpoints on the same port (``/sleep``, ``/load_lora_adapter``,
``/metrics`` …). So only what is listed here is forwarded, or what the configuration adds. Outside
``/v1/`` a path is compared as it came, so that another spelling is simply another path; inside
``/v1/`` it is first reduced to what the most lenient server could make of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes


class Dialect(Enum):
    """Whose shape errors and bodies have."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class BodyFormat(Enum):
    """What the router reads in a request's body."""

    JSON = "json"
    MULTIPART = "multipart"
    OPAQUE = "opaque"
    """Nothing: it is passed on."""


@dataclass(slots=True, frozen=True)
class Route:
    """What is known of a path."""

    body: BodyFormat = BodyFormat.OPAQUE
    dialect: Dialect = Dialect.OPENAI
    model: str | None = None
    """The model, where the path names it."""


_JSON = Route(BodyFormat.JSON)
_OPAQUE = Route()

_KNOWN: dict[bytes, Route] = {
    b"/v1/messages": Route(BodyFormat.JSON, Dialect.ANTHROPIC),
    b"/v1/messages/count_tokens": Route(BodyFormat.JSON, Dialect.ANTHROPIC),
    b"/v1/audio/transcriptions": Route(BodyFormat.MULTIPART),
    b"/v1/audio/translations": Route(BodyFormat.MULTIPART),
} | dict.fromkeys(
    (
        b"/v1/chat/completions /v1/completions /v1/responses /v1/embeddings /v1/rerank /v1/score"
        b" /v1/audio/speech /v1/classify /v1/pooling"  # OpenAI's API and vLLM's additions
        b" /tokenize /detokenize /generate /generate_stream /invocations /score /rerank /v2/rerank"
        b" /pooling /classify /encode /inference/v1/generate"  # vLLM, SGLang, TGI
        b" /completion /completions /chat/completions /embedding /embeddings /infill"
        b" /apply-template /chat_tokenize"  # llama.cpp, TGI
    ).split(),
    _JSON,
)

_ADMINISTRATION = frozenset(
    b"load_lora_adapter unload_lora_adapter loads load metrics sleep wake_up flush_cache"
    b" server_info get_server_info get_load update_weights abort_requests abort_request pause"
    b" resume reset_prefix_cache internal".split()
)
"""Names that are not forwarded below ``/v1/`` either."""


class Routes:
    """The paths that are forwarded.

    Args:
        forward_paths: Further ones: ``/path``, or ``/path/*`` for all below it.
    """

    def __init__(self, forward_paths: list[str]) -> None:
        self._exact = {path.encode() for path in forward_paths if not path.endswith("/*")}
        self._below = tuple(p[:-1].encode() for p in forward_paths if p.endswith("/*"))

    def find(self, path: bytes) -> Route | None:
        """The route of a raw path without its query; None when it is not forwarded."""
        route = _KNOWN.get(path)
        if route is not None:
            return route
        if path.startswith(b"/v1/"):
            route = _below_v1(path)
            if route is not None:
                return route
        if path in self._exact:
            return _OPAQUE
        if self._below and path.startswith(self._below) and _stays_below(path, self._below):
            return _OPAQUE
        return None


def _below_v1(path: bytes) -> Route | None:
    segments = _segments(path)
    if segments[:1] != [b"v1"] or len(segments) < 2 or not _ADMINISTRATION.isdisjoint(segments):
        return None
    plain = b"/" + b"/".join(segments)
    if segments[1] == b"models" and len(segments) > 2:
        model = b"/".join(unquote_to_bytes(path).split(b"/")[3:])
        return Route(model=model.decode(errors="replace"))
    return _KNOWN.get(plain, _OPAQUE)


def _stays_below(path: bytes, prefixes: tuple[bytes, ...]) -> bool:
    plain = b"/" + b"/".join(_segments(path)) + b"/"
    return plain.startswith(prefixes)


def _segments(path: bytes) -> list[bytes]:
    """The segments that the most lenient server could see, in lower case.

    Percent-encoding is undone until none is left, backslashes count as slashes, parameters after
    a semicolon and empty segments are dropped, dot segments are resolved.
    """
    while (plain := unquote_to_bytes(path)) != path:
        path = plain
    segments: list[bytes] = []
    for raw in path.lower().replace(b"\\", b"/").split(b"/"):
        segment = raw.partition(b";")[0].strip()
        if segment == b"..":
            del segments[-1:]
        elif segment not in {b"", b"."}:
            segments.append(segment)
    return segments
