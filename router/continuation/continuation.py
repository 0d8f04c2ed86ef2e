"""One answer that goes on, whatever becomes of the replicas that write it.

The owner sends requests and moves bytes; this says which, and what the client gets. In turn::

    judge(path, body)            a Wish, or a Reason why the answer is relayed as any other
    Continuation(wish, …)
    start(engine)                the body for the first replica, and again for each other one as
                                 long as nothing was relayed
    passed(data)                 bytes of the stream, without the framing of HTTP, in; bytes for the
                                 client out
    broken                       after each that did not return ``data`` itself: the engine gave up
                                 inside of the stream; drop it
    ended                        after each: the answer is complete though the engine writes on
    complete                     when the stream ended: whether that was its end
    ending()                     it broke: whether nothing but its end is missing
    resume(engine)               it broke: the next request, the bytes that end the stream after
                                 all, or a Reason
    passed(data) …               and so on, over as many replicas as it takes
    close()                      at the end, whatever it was
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.continuation.reasons import Reason
from router.continuation.resume import (
    Finished,
    Resume,
    drops_usage,
    first_body,
    has_way,
    keeps_stop,
    lag_chars,
    over,
    plan,
)
from router.continuation.stitch import Stitch
from router.continuation.tap import Tap
from router.continuation.wording import wording

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.continuation.budget import Budget
    from router.continuation.record import Record
    from router.continuation.wish import Wish


@dataclass(slots=True, frozen=True)
class Ending:
    """The answer needs no further replica."""

    data: bytes
    """What ends the client's stream; may be nothing."""


class Continuation:
    """One streamed answer.

    Args:
        wish: What the client asked for.
        budget: What all streams share.
        stream_bytes: So much may be remembered of this one.
    """

    __slots__ = ("_budget", "_over", "_stitch", "_stream_bytes", "_tap", "_wish", "passed")

    passed: Callable[[bytes], bytes]
    """What the client gets of the next bytes of the stream; may be nothing. Another function after
    each :meth:`start` and :meth:`resume`, so that a chunk costs one call."""

    def __init__(self, wish: Wish, budget: Budget, stream_bytes: int) -> None:
        self._wish = wish
        self._budget = budget
        self._stream_bytes = stream_bytes
        self._tap = self._new_tap(strips_ids=False)
        self.passed = self._tap.passed
        self._stitch: Stitch | None = None
        self._over = False

    def start(self, engine: str | None) -> bytes:
        """The body of a first request.

        Args:
            engine: Of the replica that it goes to; None while it is not known.
        """
        body, strips_ids = first_body(self._wish, engine)
        self._tap.close()
        self._tap = self._new_tap(strips_ids=strips_ids)
        self.passed = self._tap.passed
        self._tap.record.lag_chars = lag_chars(self._wish, engine)
        return body

    def has_way(self, engine: str | None) -> bool:
        """Whether a replica of that engine could go on in the middle of the answer."""
        return has_way(self._wish, engine)

    def unfinished(self) -> bytes:
        """What a stream that ended well had begun to say in the end, and was held back."""
        return self._tap.unfinished if self._stitch is None else b""

    def obstacle(self) -> Reason | None:
        """Why a stream that is over cannot be gone on with, whoever would have to."""
        if self._stitch is None:
            self._tap.settle()
        return self._tap.lost or self._record.obstacle

    @property
    def stream(self) -> Tap | Stitch:
        """The stream at hand, another one after each :meth:`start` and :meth:`resume`. It knows
        whether it is ``broken``: of no use any more, though the connection may be; and whether it
        has ``ended``: the answer is complete, and the replica works for nobody."""
        return self._tap if self._stitch is None else self._stitch

    @property
    def broken(self) -> bool:
        """Whether the stream is of no use any more, though the connection may be."""
        return self.stream.broken

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, and the replica works for nobody."""
        return self.stream.ended

    @property
    def lost(self) -> Reason | None:
        """Why the stream cannot be continued any more, if that is so."""
        return self._tap.lost

    @property
    def complete(self) -> bool:
        """Whether the answer's end was passed on; also true if nobody looked (:attr:`lost`)."""
        if self._stitch is not None:
            return self._over or self._record.finish is not None
        return self._over or self._tap.complete or self._tap.lost is not None

    def ending(self) -> Ending | None:
        """What ends an answer that broke, if nothing but its end is missing."""
        if self.obstacle() is not None:
            return None
        finished = over(self._wish, self._record)
        return self._end(self._record, finished) if isinstance(finished, Finished) else None

    def resume(self, engine: str | None) -> Resume | Ending | Reason:
        """How to go on with an answer that broke.

        May be called again for another replica, when that one did not even answer.

        Args:
            engine: Of the replica that is to go on.
        """
        tap, record = self._tap, self._record
        if self._stitch is None:
            tap.settle()
            if tap.lost is not None:
                return tap.lost
            record = tap.record
        if record.size_bytes > self._stream_bytes:
            return Reason.STREAM_BYTES
        planned = plan(self._wish, record, engine)
        if isinstance(planned, Reason):
            return planned
        if isinstance(planned, Finished):
            return self._end(record, planned)
        self._stitch = Stitch(
            self._wish,
            record,
            planned,
            drops_usage=drops_usage(self._wish, engine),
            keeps_stop=keeps_stop(self._wish, engine),
        )
        self.passed = self._stitch.passed
        record.lag_chars = lag_chars(self._wish, engine)
        return planned

    def close(self) -> None:
        """The answer is over, well or not."""
        self._tap.close()

    @property
    def _record(self) -> Record:
        return self._tap.record if self._stitch is None else self._stitch.record

    def _end(self, record: Record, finished: Finished) -> Ending:
        words = wording(self._wish, record, crossed=False, drops_usage=False)
        ending = words.ending(finished.finish, finished.stop)
        self._over = record.done = True
        return Ending(ending)

    def _new_tap(self, *, strips_ids: bool) -> Tap:
        return Tap(
            self._wish.api,
            strips_ids=strips_ids,
            budget=self._budget,
            stream_bytes=self._stream_bytes,
        )
