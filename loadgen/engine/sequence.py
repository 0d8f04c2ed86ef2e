"""One sequence in the engine, and what the engine reports of it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections import abc

    from loadgen.engine.block_pool import Unit


class State(Enum):
    """Where a sequence is."""

    NEW = "new"
    WAITING = "waiting"
    FETCHING = "fetching"
    """It has room in the KV cache, and its KV is on its way."""
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"
    ABORTED = "aborted"


class Leg(Enum):
    """What part of a request a sequence is."""

    WHOLE = "whole"
    PREFILL = "prefill"
    """Its prompt, and the first token; its blocks stay pinned until they are let go."""
    DECODE = "decode"
    """Its answer: the KV of its prompt comes from elsewhere."""


class Sequence:
    """A prompt and its answer, as lengths; the engine needs no tokens.

    Args:
        prompt_tokens: Length of the prompt, at least 1.
        output_tokens: Length that the answer will have, at least 1. The schedule never depends on
            it: the engine does not know the end before it comes.
        keys: One key for each complete unit (see ``loadgen.engine.block_pool``) from the start of
            the prompt; equal keys mean equal tokens up to there. May reach into the answer: what
            lies there can be found by others once this sequence has ended.
        leg: What part of a request it is.

    Raises:
        ValueError: A length makes no sense.
    """

    __slots__ = (
        "admitted_s",
        "arrival_s",
        "cached_tokens",
        "chunk_tokens",
        "computed_tokens",
        "finished_s",
        "first_token_s",
        "generated",
        "goal_tokens",
        "held_blocks",
        "keys",
        "kv_came",
        "last_step",
        "leg",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "state",
        "unit_blocks",
        "units",
    )

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        keys: abc.Sequence[int] = (),
        leg: Leg = Leg.WHOLE,
    ) -> None:
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"not a sequence: {prompt_tokens} + {output_tokens} tokens")
        if leg is Leg.PREFILL and output_tokens > 1:
            raise ValueError(f"a prefill leg yields one token, not {output_tokens}")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.keys = keys
        self.leg = leg
        self.state = State.NEW
        self.preemptions = 0
        self.cached_tokens = 0
        """Prompt tokens found in the prefix cache when it was first admitted."""
        self.arrival_s = 0.0
        self.admitted_s: float | None = None
        """When it was first scheduled."""
        self.first_token_s: float | None = None
        self.finished_s: float | None = None

        # The engine's own notes. In decode they stand still: the engine counts steps for all.
        self.generated = 0
        self.computed_tokens = 0
        self.goal_tokens = prompt_tokens
        """What prefill has to compute: the prompt, and after a preemption the answer so far."""
        self.chunk_tokens = 0
        """Prefill tokens in the step that is under way."""
        self.held_blocks = 0
        self.units: list[Unit] = []
        self.unit_blocks = 0
        """How many of the held blocks are in ``units``."""
        self.kv_came = False
        """Whether the KV of a decode leg was there: lost again, it is computed."""
        self.last_step = 0
        """In decode: the engine's decode step that yields the last token."""

    def __repr__(self) -> str:
        return f"<Sequence {self.prompt_tokens}+{self.output_tokens} {self.state.value}>"

    @property
    def tokens_in_all(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.output_tokens


class EventKind(Enum):
    """What can be reported of a sequence."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - not a password
    FINISHED = "finished"
    PREEMPTED = "preempted"
    KV_ROOM = "kv_room"
    """A decode leg has room: its KV may come."""


class Event(NamedTuple):
    """Something happened to a sequence."""

    kind: EventKind
    sequence: Sequence
    at_s: float
