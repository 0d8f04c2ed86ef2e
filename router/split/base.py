"""What a dialect of split requests looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from router.api.fields import FIELDS, Fields

if TYPE_CHECKING:
    from collections.abc import Collection

_ABSENT: Final = frozenset({b"null", b"false", b"0"})

_WHOLE: Final = ("prompt_logprobs", "echo", "use_beam_search")
"""Fields that make a request one that no engine splits."""

_SINGLE: Final = ("n", "best_of")


@dataclass(slots=True)
class Peer:
    """A replica as the other leg's replica reaches it."""

    host: str
    """Name or number, IPv6 in brackets."""

    bootstrap_port: int = 8998
    """Where a prefill replica tells others how to fetch from it; what SGLang and vLLM's Mooncake
    connector listen at unless told otherwise."""

    kv_address: str = ""
    """Where vLLM's P2P connector listens, host:port."""

    engine_id: str = ""
    """What vLLM's Mooncake connector calls itself; empty as long as it is not known."""


class Legs(Protocol):
    """The two requests that one becomes."""

    @property
    def at_once(self) -> bool:
        """Whether both are sent at once; else the decode leg when the prefill leg has answered."""

    @property
    def request_id(self) -> bytes | None:
        """The id that both must have; None: any."""

    @property
    def prefill_body(self) -> bytes:
        """What the prefill replica is asked."""

    def decode_body(self, answer: bytes) -> bytes | None:
        """What the decode replica is asked.

        Args:
            answer: The prefill replica's, whole; nothing where both are sent at once.

        Returns:
            None if nobody can go on from that answer.
        """


class KvDialect(Protocol):
    """How one engine's replicas split a request."""

    @property
    def name(self) -> str:
        """The name in the configuration."""

    @property
    def serves_whole(self) -> bool:
        """Whether replicas that are there for one leg serve whole requests as well."""

    @property
    def paths(self) -> Collection[bytes]:
        """Where requests that can be split are posted."""

    def legs(self, body: bytes, prefill: Peer, decode: Peer, number: int) -> Legs | None:
        """Make two requests of one.

        Args:
            body: The request's.
            prefill: Who computes its prompt.
            decode: Who answers.
            number: That nobody else has, 0 to 2**63 - 1.

        Returns:
            None if it cannot be split.
        """


def read_fields(body: bytes) -> Fields | None:
    """The fields of a body; None if it is no JSON object."""
    try:
        return FIELDS.decode(body)
    except msgspec.DecodeError:
        return None


def told(fields: Fields, name: str) -> bool:
    """Whether a field is there and says more than no."""
    raw = fields.get(name)
    return raw is not None and bytes(raw) not in _ABSENT


def one_answer(fields: Fields) -> bool:
    """Whether the request asks for one answer, and for nothing that the prompt's tokens tell."""
    if any(told(fields, name) for name in _WHOLE):
        return False
    return all(not told(fields, name) or bytes(fields[name]) == b"1" for name in _SINGLE)
