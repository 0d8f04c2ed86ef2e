"""What the data plane knows of splitting requests: the dialect, and where its replicas are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.split.base import Peer
from router.split.catalogue import DIALECTS

if TYPE_CHECKING:
    from random import Random

    from router.config.structs import Config, ReplicaConfig
    from router.core.replica import Replica
    from router.split.base import KvDialect, Legs

MAX_NUMBER_BITS = 63


class Splits:
    """Makes two requests of one.

    Args:
        config: The fleet.
        dialect: What its engines understand.
        rng: Source of numbers that nobody else has.
    """

    def __init__(self, config: Config, dialect: KvDialect, rng: Random) -> None:
        self.dialect = dialect
        self.peers = {replica.full_name: _peer(replica) for replica in config.replicas}
        """By the name of the replica."""
        self._rng = rng

    def legs(self, body: bytes, prefill: Replica, decode: Replica) -> Legs | None:
        """As of the dialect."""
        peers, number = self.peers, self._rng.getrandbits(MAX_NUMBER_BITS)
        return self.dialect.legs(body, peers[prefill.name], peers[decode.name], number)


def make_splits(config: Config, rng: Random) -> Splits | None:
    """None: nothing is split."""
    name = config.split.kv_dialect
    return Splits(config, DIALECTS[name], rng) if name else None


def _peer(replica: ReplicaConfig) -> Peer:
    host = replica.address.host
    return Peer(
        f"[{host}]" if ":" in host else host,
        bootstrap_port=replica.bootstrap_port,
        kv_address=replica.kv_address,
    )
