"""What was decided last, and how it turned out: kept so that people can ask why.

Each decision is packed as one byte string, in one call. That is a tenth of what it would take as
objects, and the garbage collector has nothing to look at.
"""

from __future__ import annotations

from array import array
from math import isnan, nan
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from policies.base import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.base import Choice
    from router.core.request import Attempt

MAX_DECISIONS: Final = 10_000
MAX_BYTES: Final = 16 * 1024 * 1024
"""What all that is kept may take. 10,000 decisions with eight estimates each take 12 MiB; where
names are so long that it is not enough, fewer are kept."""

MAX_ESTIMATES: Final = 8
"""Candidates kept of one decision, the best first."""

MAX_TEXT: Final = 128
"""Characters kept of a text that clients or plugins made up."""

MAX_CHAIN: Final = 32
"""Decisions shown for one id; a client may give the same to all its requests."""

RECORD_BYTES: Final = 560
"""What one decision takes beside its packed bytes: its id and end as objects, and its places in
the tables. Measured with ids of 32 characters."""


class Decision(msgspec.Struct, frozen=True):
    """One attempt: where it went, why, and how it turned out."""

    number: int
    """Its running number."""

    request_id: str
    at_s: float
    """When it was sent, in monotonic seconds."""

    model: str | None
    prompt_tokens: int
    attempt: int
    """The first, second … of its request."""

    chosen: str
    """The replica."""

    reason: str
    """Of the policy, or of the router where health left no choice."""

    candidates: int
    """Replicas that the policy could choose from."""

    held_s: float
    """So long it had waited in the router."""

    ttft_s: float | None
    """Time to first token from sending, as it was expected; None: the policy expects nothing."""

    e2e_s: float | None
    """Time to the end from sending, as it was expected."""

    estimates: tuple[Estimate, ...]
    """What the policy expected of the best candidates, the best first."""

    seen_ttft_s: float | None
    """Time to first token as it turned out; None: none came yet."""

    took_s: float | None
    """Time from sending to the end of the attempt; None: it has not ended."""

    outcome: str | None
    """How it ended: a status, ``gone`` when the client left, or how it failed; None: it has not."""


# fmt: off
_Fields: TypeAlias = tuple[
    str, float, str | None, int, int, str, str, int, float,
    float | None, float | None, tuple[Estimate, ...],
]
"""What is packed: the fields of :class:`Decision` from ``request_id`` to ``estimates``."""

_SURE: Final = msgspec.msgpack.Decoder(tuple[
    str, float, str | None, int, int, str, str, int, float,
    msgspec.Raw, msgspec.Raw, msgspec.Raw,
])
# fmt: on
"""For what a plugin had a hand in: all but the last three are the router's own."""


class Decisions:
    """The last decisions.

    Args:
        max_decisions: So many are kept at most.
        max_bytes: What they may take in all.
    """

    __slots__ = (
        "_before",
        "_capacity",
        "_ids",
        "_latest",
        "_max_bytes",
        "_oldest",
        "_outcomes",
        "_pack",
        "_packed",
        "_seen_ttft_s",
        "_took_s",
        "_unpack",
        "bytes",
        "total",
    )

    def __init__(self, max_decisions: int = MAX_DECISIONS, max_bytes: int = MAX_BYTES) -> None:
        self.total = 0
        """Decisions since the start; the next one's running number."""
        self.bytes = 0
        """What those that are kept take, by :data:`RECORD_BYTES` and the packed bytes."""
        self._capacity = max_decisions
        self._max_bytes = max_bytes
        self._oldest = 0
        self._packed: list[bytes] = [b""] * max_decisions
        self._ids: list[str] = [""] * max_decisions
        self._outcomes: list[str | None] = [None] * max_decisions
        self._seen_ttft_s = array("d", [nan]) * max_decisions
        self._took_s = array("d", [nan]) * max_decisions
        self._before = array("q", [-1]) * max_decisions
        """The decision before it of the same id; -1: none."""
        self._latest: dict[str, int] = {}
        """The last decision of each id."""
        self._pack = msgspec.msgpack.Encoder().encode
        self._unpack: Callable[[bytes], _Fields] = msgspec.msgpack.Decoder(_Fields).decode

    def __len__(self) -> int:
        return self.total - self._oldest

    def record(self, attempt: Attempt, choice: Choice, candidates: int, held_s: float) -> int:
        """Keep a decision; on the way of each request, so it does little.

        Args:
            attempt: What was sent.
            choice: What the policy said.
            candidates: How many replicas it could choose from.
            held_s: So long the request had waited in the router.

        Returns:
            Its running number, by which to tell how it turned out.
        """
        request_id = attempt.request.request_id
        packed = self._packed_fields(attempt, choice, candidates, held_s)
        number = self.total
        size = len(packed) + RECORD_BYTES
        while number - self._oldest >= self._capacity or (
            self.bytes + size > self._max_bytes and self._oldest < number
        ):
            self._forget_oldest()
        slot = number % self._capacity
        self.total = number + 1
        self.bytes += size
        self._packed[slot] = packed
        self._ids[slot] = request_id
        self._before[slot] = self._latest.get(request_id, -1)
        self._latest[request_id] = number
        return number

    def first_token(self, number: int, seen_ttft_s: float) -> None:
        """The first token of a decision's attempt came."""
        if number >= self._oldest:
            self._seen_ttft_s[number % self._capacity] = seen_ttft_s

    def ended(self, number: int, took_s: float, outcome: str) -> None:
        """A decision's attempt ended.

        Args:
            number: Which.
            took_s: Time since it was sent.
            outcome: How, in a word.
        """
        if number >= self._oldest:
            slot = number % self._capacity
            self._took_s[slot] = took_s
            self._outcomes[slot] = outcome

    def get(self, number: int) -> Decision | None:
        """The decision of a running number; None when it is kept no more."""
        if not self._oldest <= number < self.total:
            return None
        slot = number % self._capacity
        return Decision(
            number,
            *self._fields(self._packed[slot]),
            _known(self._seen_ttft_s[slot]),
            _known(self._took_s[slot]),
            self._outcomes[slot],
        )

    def of(self, request_id: str) -> list[Decision]:
        """The decisions about one request, the first one first; empty when none is kept."""
        found: list[Decision] = []
        number = self._latest.get(request_id, -1)
        while len(found) < MAX_CHAIN and (decision := self.get(number)) is not None:
            found.append(decision)
            number = self._before[number % self._capacity]
        return found[::-1]

    def last(self, count: int) -> list[Decision]:
        """The last ``count`` decisions, the latest first."""
        numbers = range(self.total - 1, max(self._oldest, self.total - count) - 1, -1)
        return [found for number in numbers if (found := self.get(number)) is not None]

    # -- inside -------------------------------------------------------------------------------

    def _packed_fields(
        self, attempt: Attempt, choice: Choice, candidates: int, held_s: float
    ) -> bytes:
        request, replica = attempt.request, attempt.replica
        facts = request.facts
        model, reason = facts.model, choice.reason
        try:
            return self._pack(
                (
                    request.request_id,
                    attempt.started_s,
                    model if model is None else model[:MAX_TEXT],
                    facts.prompt_tokens,
                    request.attempts,
                    replica.name,
                    reason[:MAX_TEXT],
                    candidates,
                    held_s,
                    choice.ttft_s,
                    attempt.predicted_e2e_s,
                    choice.estimates[:MAX_ESTIMATES],
                )
            )
        except (TypeError, ValueError, OverflowError, RecursionError):
            # A plugin's estimates may hold anything, and a client's model half a character.
            return self._pack(
                (
                    ascii(request.request_id)[1:-1],
                    attempt.started_s,
                    model if model is None else ascii(model[:MAX_TEXT])[1:-1],
                    min(facts.prompt_tokens, 2**63),
                    request.attempts,
                    replica.name,
                    ascii(reason[:MAX_TEXT])[1:-1],
                    candidates,
                    held_s,
                    None,
                    None,
                    (),
                )
            )

    def _fields(self, packed: bytes) -> _Fields:
        try:
            return self._unpack(packed)
        except msgspec.ValidationError:  # a plugin's estimates are none
            return (*_SURE.decode(packed)[:9], None, None, ())

    def _forget_oldest(self) -> None:
        slot = self._oldest % self._capacity
        packed = self._packed[slot]
        request_id = self._ids[slot]
        if self._latest.get(request_id) == self._oldest:
            del self._latest[request_id]
        self.bytes -= len(packed) + RECORD_BYTES
        self._packed[slot], self._ids[slot] = b"", ""
        self._outcomes[slot] = None
        self._seen_ttft_s[slot] = self._took_s[slot] = nan
        self._oldest += 1


def _known(value: float) -> float | None:
    return None if isnan(value) else value
