"""The KV of split requests on its way from the replica that computed it to the one that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

from loadgen.engine.links import Links
from policies.transfer import LATENCY_S

if TYPE_CHECKING:
    from loadgen.engine.links import Flow
    from loadgen.engine.sequence import Sequence
    from loadgen.simulate.agenda import Agenda
    from loadgen.simulate.station import Station
    from router.core.request import Attempt


@dataclass(slots=True)
class _Kept:
    """What a prefill replica keeps for an answer elsewhere."""

    source: Station
    sequence: Sequence
    flow: Flow | None = None


class _Arrival(NamedTuple):
    """What a transfer brings, and where to."""

    answer: Attempt
    target: Station
    sequence: Sequence


class Transfers:
    """Moves KV over links that are shared.

    Args:
        agenda: Time.
        bytes_per_s: How fast the link of each replica is, in either direction.
    """

    def __init__(self, agenda: Agenda, bytes_per_s: float) -> None:
        self._agenda = agenda
        self._links = Links(bytes_per_s, LATENCY_S)
        self._kept: dict[Attempt, _Kept] = {}
        self._due_s: float | None = None

    def __len__(self) -> int:
        """Prompts whose KV is kept for an answer elsewhere."""
        return len(self._kept)

    def computed(self, answer: Attempt, source: Station, sequence: Sequence) -> None:
        """A prompt was computed at ``source``, which keeps its KV for the attempt ``answer``."""
        self._kept[answer] = _Kept(source, sequence)

    def begin(self, answer: Attempt, target: Station, sequence: Sequence) -> None:
        """The replica that answers has room: bring it what its own cache has not."""
        kept = self._kept[answer]
        tokens = sequence.prompt_tokens - sequence.cached_tokens
        size_bytes = tokens * target.plan.profile.kv_bytes_per_token
        now = self._agenda.now_s
        arrival = _Arrival(answer, target, sequence)
        kept.flow = self._links.begin(kept.source, target, size_bytes, now, arrival)
        self._arm()

    def drop(self, answer: Attempt) -> None:
        """The attempt is over, or has its KV: nobody keeps anything for it any more."""
        kept = self._kept.pop(answer, None)
        if kept is None:
            return
        if kept.flow is not None:
            self._links.cancel(kept.flow, self._agenda.now_s)
            self._arm()
        kept.source.let_go(kept.sequence)

    def kept_by(self, source: Station) -> list[Attempt]:
        """For whom a replica keeps KV."""
        return [answer for answer, kept in self._kept.items() if kept.source is source]

    def _arm(self) -> None:
        due_s = self._links.next_end_s()
        if due_s != self._due_s:
            self._due_s = due_s
            if due_s is not None:
                self._agenda.at(due_s, self._due, due_s)

    def _due(self, due_s: float) -> None:
        if due_s != self._due_s:
            return  # it was planned anew meanwhile
        self._due_s = None
        for flow in self._links.advance(self._agenda.now_s):
            arrival = cast("_Arrival", flow.driver)
            self.drop(arrival.answer)
            arrival.target.kv_arrived(arrival.sequence)
        self._arm()
