"""Request bodies, made before they are due.

A prompt of 100k tokens takes some milliseconds to write. In a volley, or with replicas on the same
cores, that time must not be spent at the moment of sending.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from loadgen.replay.client import request_body

if TYPE_CHECKING:
    from loadgen.replay.options import Endpoint
    from loadgen.replay.prompts import PromptWriter
    from loadgen.trace.request import Trace

_AHEAD_BYTES = 16 << 20
"""How much is kept ready."""


class Bodies:
    """The bodies of a trace's requests, one after the other.

    Args:
        trace: The trace.
        writer: Writes the prompts.
        model: The model to ask for.
        endpoint: The API to speak.
    """

    def __init__(self, trace: Trace, writer: PromptWriter, model: str, endpoint: Endpoint) -> None:
        self._trace = trace
        self._writer = writer
        self._model = model
        self._endpoint = endpoint
        self._ready: deque[bytes] = deque()
        self._ready_bytes = 0
        self._prepared = 0

    def prepare(self) -> bool:
        """Make one more body ahead of time; False when enough are ready, or all were made."""
        if self._ready_bytes >= _AHEAD_BYTES or self._prepared == len(self._trace.requests):
            return False
        request = self._trace.requests[self._prepared]
        prompt = self._writer.write(self._prepared, request)
        body = request_body(request, prompt, self._model, self._endpoint)
        self._prepared += 1
        self._ready.append(body)
        self._ready_bytes += len(body)
        return True

    def take(self) -> bytes:
        """The body of the next request.

        Raises:
            IndexError: All were taken.
        """
        if not self._ready:
            self.prepare()
        body = self._ready.popleft()
        self._ready_bytes -= len(body)
        return body
