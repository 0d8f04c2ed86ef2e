"""Finding out which engine a replica runs.

In this order, the first that fits:

1. what the page at ``/metrics`` says: its lines' prefix, or TensorRT-LLM's JSON (reading which
   drains it, so the page is handed on); llama.cpp without ``--metrics`` answers 501 there, with
   its name in the ``Server`` header;
2. TensorRT-LLM's ``/prometheus/metrics``;
3. SGLang's ``/v1/loads`` and ``/get_load``, there even without ``--enable-metrics``;
4. llama.cpp's ``/slots``, for one behind a proxy that drops the ``Server`` header;
5. ``/version``: vLLM with its statistics switched off;
6. none of these: ``generic``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from router.engines.catalogue import GENERIC, LLAMACPP, VLLM, recognise

if TYPE_CHECKING:
    from router.engines.base import Dialect
    from router.polling.client import ReplicaClient
    from router.polling.connection import Answer

PAGES: Final = (
    "/metrics",
    "/prometheus/metrics",
    "/v1/loads?include=core",
    "/get_load",
    "/slots",
)


class Detected(NamedTuple):
    """Which engine, and the page that gave it away."""

    dialect: Dialect
    path: str | None = None
    """Where that page is; None: there is no page."""

    page: bytes = b""


class _Version(msgspec.Struct):
    version: str


async def detect(client: ReplicaClient) -> Detected:
    """Find out which engine answers.

    Raises:
        router.polling.client.LookFailedError: An answer did not come, so nothing can be said.
    """
    for path in PAGES:
        answer = await client.get(path)
        if answer.ok and (dialect := recognise(answer.body)) is not None:
            return Detected(dialect, path, answer.body)
        if answer.server == "llama.cpp":
            return Detected(LLAMACPP)
    if _has_version(await client.get("/version")):
        return Detected(VLLM)
    return Detected(GENERIC)


def _has_version(answer: Answer) -> bool:
    if not answer.ok:
        return False
    try:
        msgspec.json.decode(answer.body, type=_Version)
    except msgspec.MsgspecError:
        return False
    return True
