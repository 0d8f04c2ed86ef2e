"""Which beginnings of prompts many requests share, with a request that begins so for each.

A replica that comes up empty can compute those before its first request. What is shared is found
where the prefix index is asked anyway: where the longest match of a prompt ends, prompts part. The
system prompt of an application is such a place again and again; a conversation goes on from a place
of its own once only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.base import RequestFacts

LEAST_TOKENS: Final = 1024
"""What is shorter costs less than a request for it."""

MOST_PLACES: Final = 1024
"""Places that are counted; with more, all counts are halved and those below one forgotten."""

MOST_SAMPLE_BYTES: Final = 512 * 1024
"""A longer request is no sample."""

MOST_BYTES: Final = 8 * 1024 * 1024
"""Of all samples together; beyond it counts are halved as well."""

_COMMON: Final = 3.0
"""So many prompts must have parted at a place before it gets a sample."""


@dataclass(slots=True)
class HotPrompt:
    """A place where prompts part."""

    model: str | None
    prefix: tuple[int, ...]
    """The keys of the blocks that they share."""
    block_tokens: int
    uses: float = 0.0
    """Prompts that parted here, older ones counted less."""
    sample: tuple[bytes, bytes] | None = None
    """Path and body of the shortest request seen that begins so."""
    sample_tokens: int = 0

    @property
    def tokens(self) -> int:
        """What they share."""
        return len(self.prefix) * self.block_tokens

    @property
    def heat(self) -> float:
        """Prompt tokens that whoever has it in its cache was spared."""
        return self.uses * self.tokens


class HotPrompts:
    """Counts where prompts part.

    Args:
        most: Prompts to answer with; 0: none are counted.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.sample_bytes = 0
        """Of all samples."""
        self._places: dict[int, HotPrompt] = {}

    def __len__(self) -> int:
        return len(self._places)

    def saw(self, facts: RequestFacts, path: bytes, body: bytes) -> None:
        """A request was routed.

        Args:
            facts: Of the request, with what each replica is believed to have of it.
            path: Where it was posted.
            body: As it was sent.
        """
        shared = max(facts.cached.values(), default=0)
        if shared < LEAST_TOKENS or not self.most:
            return
        blocks = shared // facts.prefix_block_tokens
        key = facts.prefix[blocks - 1]
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= MOST_PLACES:
                self._age()
            place = self._places[key] = HotPrompt(
                facts.model, facts.prefix[:blocks], facts.prefix_block_tokens
            )
        place.uses += 1.0
        shorter = place.sample is None or facts.prompt_tokens < place.sample_tokens
        if place.uses >= _COMMON and shorter and len(body) <= MOST_SAMPLE_BYTES:
            self._take_sample(place, facts.prompt_tokens, path, body)

    def hottest(self, models: Iterable[str] | None) -> list[HotPrompt]:
        """Those that would spare a replica most, the best first; all have a sample.

        Args:
            models: Which the replica serves; None or none: any.
        """
        served = frozenset(models or ())
        found = [
            place
            for place in self._places.values()
            if place.sample is not None
            and (not served or place.model is None or place.model in served)
        ]
        found.sort(key=_heat, reverse=True)
        return found[: self.most]

    def _take_sample(self, place: HotPrompt, tokens: int, path: bytes, body: bytes) -> None:
        before = len(place.sample[1]) if place.sample is not None else 0
        place.sample, place.sample_tokens = (path, body), tokens
        self.sample_bytes += len(body) - before
        while self.sample_bytes > MOST_BYTES:
            self._age()

    def _age(self) -> None:
        kept: dict[int, HotPrompt] = {}
        for key, place in self._places.items():
            place.uses /= 2
            if place.uses >= 1.0:
                kept[key] = place
        self._places = kept
        self.sample_bytes = sum(len(p.sample[1]) for p in kept.values() if p.sample is not None)


def _heat(place: HotPrompt) -> float:
    return place.heat
