"""Streams that can go on elsewhere: what each has of that, and what all of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.continuation.budget import Budget
from router.continuation.continuation import Continuation, Ending
from router.continuation.eligibility import judge
from router.continuation.reasons import Reason
from router.continuation.resume import Resume

if TYPE_CHECKING:
    from router.config.structs import ContinuationConfig
    from router.http1.response import ResponseHead

CONTINUED: Final = "continued"
"""The answer went on elsewhere and came to its end."""
ENDED: Final = "ended"
"""It broke when nothing but its end was missing, and the router said that."""
FAILED: Final = "failed"
"""It was broken off in the end."""
GONE: Final = "gone"
"""The client left in the end."""


class Continuations:
    """What all streams share that can go on elsewhere.

    Args:
        config: Whether they are continued, and how much may be remembered for that.
    """

    def __init__(self, config: ContinuationConfig) -> None:
        self._config = config
        self.budget = Budget(config.total_bytes)
        self.outcomes: dict[str, int] = {}
        """Streams that broke, by what became of them."""
        self.requests: dict[str, int] = {}
        """Requests that asked for the rest of an answer, by their method."""
        self.not_continued: dict[str, int] = {}
        """Streams that cannot be continued, or could not when they broke, by reason."""

    def open(self, path: bytes, body: bytes) -> ContinuableAnswer | None:
        """What a streamed answer needs to go on elsewhere; None: it cannot, whoever answers.

        Args:
            path: Of the request, without its query.
            body: Of the request.
        """
        config = self._config
        if not config.enabled:
            return None
        wish = judge(path, body)
        if not isinstance(wish, Reason):
            if len(body) <= config.stream_bytes:
                continuation = Continuation(wish, self.budget, config.stream_bytes)
                return ContinuableAnswer(self, continuation, len(body))
            wish = Reason.STREAM_BYTES
        self.count_reason(wish)
        return None

    def count_reason(self, reason: Reason) -> None:
        """Count a stream that cannot be continued."""
        self.not_continued[reason.value] = self.not_continued.get(reason.value, 0) + 1


class ContinuableAnswer:
    """One streamed answer as far as it can go on elsewhere.

    Args:
        shared: What all of them share.
        continuation: Says what is sent and what the client gets.
        body_bytes: Length of the request's body, which is remembered as long as this is.
    """

    __slots__ = (
        "_body_bytes",
        "_broke",
        "_charged",
        "_counted",
        "_resume",
        "_shared",
        "continuation",
        "relayed",
    )

    def __init__(self, shared: Continuations, continuation: Continuation, body_bytes: int) -> None:
        self._shared = shared
        self.continuation = continuation
        self._body_bytes = body_bytes
        self._charged = False
        self._counted = False
        self._resume: Resume | None = None
        self._broke = False
        self.relayed = False
        """Whether the client has the beginning of the answer."""

    def request(self, engine: str | None) -> tuple[bytes, bytes | None]:
        """The body to send, and the target that takes the place of the client's, if one does.

        Args:
            engine: Of the replica that it goes to.
        """
        if self._resume is not None:
            return self._resume.body, self._resume.path
        return self.continuation.start(engine), None

    def begin(self, engine: str | None, head: ResponseHead) -> bool:
        """The head of the first stream came; False: it is relayed as any other answer.

        From here on the request's body is charged to what streams may remember, and no longer to
        the bodies that wait for an answer.

        Args:
            engine: Of the replica that answers. What takes over in its place is likely the same.
            head: What it answers.
        """
        if head.status != 200 or not head.event_stream:
            return False
        reason = None
        if head.coded:
            reason = Reason.UNREADABLE_STREAM
        elif not self.continuation.has_way(engine):
            reason = Reason.ENGINE
        elif not self._shared.budget.take(self._body_bytes):
            reason = Reason.TOTAL_BYTES
        if reason is not None:
            self._count(reason)
            return False
        self.relayed = self._charged = True
        return True

    def goes_on(self, head: ResponseHead) -> bool:
        """Whether what a replica answers to a request for the rest is a stream."""
        return head.status == 200 and head.event_stream and not head.coded

    def next(self, engine: str | None) -> Resume | Ending | Reason:
        """How to go on with the answer, which broke; what is to be sent is then the request.

        Args:
            engine: Of the replica that goes on.
        """
        self._broke = True
        planned = self.continuation.resume(engine)
        if isinstance(planned, Resume):
            self._resume = planned
            requests, method = self._shared.requests, planned.method.value
            requests[method] = requests.get(method, 0) + 1
        elif isinstance(planned, Reason):
            self._count(planned)
        return planned

    def ending(self) -> bytes | None:
        """What ends an answer that broke; None: more than its end is missing."""
        self._broke = self.relayed
        ending = self.continuation.ending() if self.relayed else None
        return None if ending is None else ending.data

    def may_go_on(self) -> bool:
        """Whether an answer that broke could go on, if there is a replica for it."""
        reason = self.continuation.obstacle()
        if reason is not None:
            self._count(reason)
        return reason is None

    def left(self) -> bytes | None:
        """What the client still gets of a stream that its replica ended.

        Returns:
            None if that was not the end of the answer, and it can go on elsewhere.
        """
        left = self.continuation.unfinished()
        return None if not self.continuation.complete and self.may_go_on() else left

    def close(self, outcome: str) -> None:
        """The answer is over.

        Args:
            outcome: What became of it, if it broke.
        """
        if self._broke:
            outcomes = self._shared.outcomes
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        lost = self.continuation.lost
        if lost is not None:
            self._count(lost)
        self.continuation.close()
        if self._charged:
            self._charged = False
            self._shared.budget.give_back(self._body_bytes)

    def _count(self, reason: Reason) -> None:
        """Count why the answer cannot be continued, once."""
        if not self._counted:
            self._counted = True
            self._shared.count_reason(reason)
