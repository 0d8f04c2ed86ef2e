"""Whether one replica makes tokens, of which its health page may know nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from router.polling.connection import Blame, LookFailedError

if TYPE_CHECKING:
    from router.polling.client import ReplicaClient

GENERATION_PATH: Final = "/v1/completions"

_BUSY: Final = frozenset({429, 503})


class Generation:
    """Asks a replica for one token when nobody else has for a while, and before its first request.

    While it has requests the tokens of these tell more, and cost nothing.

    Args:
        client: Whom to ask.
        every_s: How long it may have nothing to do before it is asked.
        timeout_s: How long it may take.
    """

    def __init__(self, client: ReplicaClient, every_s: float, timeout_s: float) -> None:
        self._client = client
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._due_s = 0.0
        self.failure: str | None = None
        """Why it is not believed to make tokens."""

    def forget(self) -> None:
        """The replica is down: whatever comes back has to make a token first."""
        self._due_s, self.failure = 0.0, None

    async def look(self, model: str | None, now: float, *, busy: bool) -> None:
        """Ask for a token, if that is due.

        Args:
            model: Of which; None: of whatever it serves.
            now: The time.
            busy: Whether it has requests.
        """
        if self.failure is None:
            if busy and self._due_s:
                self._due_s = now + self._every_s
            if now < self._due_s:
                return
        fields: dict[str, object] = {"prompt": "1", "max_tokens": 1, "temperature": 0}
        if model is not None:
            fields["model"] = model
        body = msgspec.json.encode(fields)
        try:
            answer = await self._client.post(GENERATION_PATH, body, self._timeout_s)
        except LookFailedError as failure:
            if failure.blame is not Blame.OURS:
                self.failure = f"it was asked for a token: {failure}"
            return
        # What it refuses to be asked it cannot be judged by.
        if answer.status >= 500 and answer.status not in _BUSY:
            self.failure = f"it was asked for a token: {GENERATION_PATH} answers {answer.status}"
            return
        self.failure = None
        self._due_s = now + self._every_s
