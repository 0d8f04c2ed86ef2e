"""What the dispatcher asks its driver to do.

Events go in as method calls, actions come out as a sequence; most events ask for nothing. An
action may concern another request than the one the event was about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from router.core.request import Attempt, Request


@dataclass(slots=True)
class Send:
    """Send the request of ``attempt`` to the replica of ``attempt``, from its first byte."""

    attempt: Attempt
    continues: bool = False
    """The client has a part of an answer already: ask for the rest of it. If that cannot be asked
    for after all, the driver says so (``Dispatcher.continuation_settled``)."""
    prefill: Attempt | None = None
    """Of a split request, the leg that computes the prompt; ``attempt`` answers with its KV. When
    the prompt is computed the driver says so (``Dispatcher.prefilled``)."""


@dataclass(slots=True)
class Hedge:
    """Send the request to the replica of ``attempt`` as well. Whichever answer begins first is the
    client's (``Dispatcher.answer_begins``); until then nothing of either is relayed."""

    attempt: Attempt


@dataclass(slots=True)
class Refuse:
    """Answer the request with an error; nothing was relayed and no attempt is open."""

    request: Request
    status: int
    code: str
    """Machine-readable reason."""
    message: str
    retry_after_s: int | None = None


@dataclass(slots=True)
class Abort:
    """End the answer being relayed so that the client sees that it is incomplete."""

    request: Request
    code: str
    message: str


@dataclass(slots=True)
class Cancel:
    """Drop the attempt; its connection is closed so that the engine frees its KV."""

    attempt: Attempt


Action: TypeAlias = Send | Hedge | Refuse | Abort | Cancel
Actions: TypeAlias = Sequence[Action]
