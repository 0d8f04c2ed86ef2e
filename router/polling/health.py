"""Whether one replica can be sent requests, and for which models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.polling.connection import Blame, LookFailedError
from router.polling.models import MODELS_PATH, parse_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from router.engines.base import Dialect
    from router.polling.client import ReplicaClient
from router.polling.connection import Answer

MISSES_ALLOWED: Final = 1
"""Looks in a row that may go unanswered before the replica counts as unhealthy.

A refused connection or a 503 is a statement and is believed at once. Silence is none: an engine
whose API process is busy with the tokens of a long prompt misses a look now and then, and taking
it out sends its load to the others just when they are busy too. Two in a row, 4 s with the default
time-out, are a hung process.
"""

_NEEDS_A_KEY = frozenset({401, 403})


class Health:
    """What ``/health`` and ``/v1/models`` of one replica say.

    Args:
        client: Whom to ask.
        path: Where its health is asked for; that of its engine when left out.
    """

    def __init__(self, client: ReplicaClient, path: str = "") -> None:
        self._client = client
        self._path = path
        self._misses = 0
        self._models_due_s = 0.0
        self.alive = False
        self.reason = "not polled yet"
        """Why ``alive`` is what it is."""
        self.down = False
        """Whether it was looked at and found not alive."""
        self.models: Mapping[str, bytes] | None = None
        """Models listed since it came alive, each with what is said of it; empty: any; None: not
        listed yet."""
        self.models_reason = ""
        """Why ``models`` is None."""

    async def look(self, dialect: Dialect) -> None:
        """Ask for its health."""
        path = self._path or dialect.health_path
        try:
            answer = await self._client.get(path)
        except LookFailedError as failure:
            self._failed(failure)
            return
        self._misses = 0
        if answer.ok:
            self._up("ok")
        elif answer.absent and dialect.health_optional and not self._path:
            self._up(f"answers, without {path}")
        else:
            self._down(f"{path} answers {answer.status}")

    async def list_models(self, now: float, every_s: float) -> None:
        """Ask for its models, unless they were asked for within ``every_s``.

        A list that was read stays in force when a later one cannot be read: what a replica serves
        does not change because a page was slow.
        """
        if self.models is not None and now < self._models_due_s:
            return
        self._models_due_s = now + every_s
        try:
            self.models = _models(await self._client.get(MODELS_PATH))
            self.models_reason = ""
        except LookFailedError as failure:
            self.models_reason = f"{MODELS_PATH}: {failure}"
        except ValueError as error:
            self.models_reason = str(error)

    def _up(self, reason: str) -> None:
        self.alive = True
        self.down = False
        self.reason = reason

    def _down(self, reason: str) -> None:
        self.alive = False
        self.down = True
        self.reason = reason
        # It may come back as another process with other models.
        self.models = None

    def _failed(self, failure: LookFailedError) -> None:
        if failure.blame is Blame.OURS:
            return
        self._misses += 1
        refused = failure.blame is Blame.REFUSED
        if refused or self._misses > MISSES_ALLOWED or not self.alive:
            self._down(str(failure))


def _models(answer: Answer) -> Mapping[str, bytes]:
    """What the answer lists.

    Raises:
        ValueError: It lists nothing, and is no answer that excuses it.
    """
    if answer.ok:
        return parse_models(answer.body)
    # Without the endpoint it serves whatever is asked of it. One that wants a client's key for
    # its list cannot be asked: then its own 404 is the answer to a wrong model.
    if answer.absent or answer.status in _NEEDS_A_KEY:
        return {}
    msg = f"{MODELS_PATH} answers {answer.status}"
    raise ValueError(msg)
