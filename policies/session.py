"""Session: the same session on the same replica, unless that one is crowded."""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from policies.base import Choice
from policies.least_requests import LeastRequests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.base import ReplicaView, RequestFacts

_MASK = (1 << 64) - 1


class Session:
    """Keeps each session on one replica, where its prefix is cached, within a bound on load.

    Consistent hashing with bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, SODA 2018,
    arXiv 1608.01350): of m open requests on n replicas, the new one included, no replica takes
    more than ``ceil(load_factor x m / n)``. Instead of a ring it ranks the replicas anew for each
    session (rendezvous hashing: D. Thaler, C. Ravishankar, IEEE/ACM ToN 6(1), 1998) and takes the
    first that is below the bound. A replica that joins takes over only sessions that rank it
    first, one that leaves gives up only its own, and those that overflow spread over all others
    rather than onto one neighbour. Nothing is stored, so several routers agree without talking.

    The model is part of the key: KV caches of different models or adapters have nothing in
    common. A request without a session goes where ``least_requests`` sends it.

    Args:
        load_factor: How far above the mean load a replica may be filled, at least 1; lower means
            more even, higher means more loyal.
        least_bound: A replica with fewer open requests than this is never passed over: with few
            requests in the fleet, two on one replica are no crowd.
    """

    def __init__(self, *, load_factor: float = 1.25, least_bound: int = 4) -> None:
        if not 1 <= load_factor < math.inf:
            msg = f"load_factor is {load_factor}; allowed: a number of at least 1"
            raise ValueError(msg)
        if least_bound < 1:
            msg = f"least_bound is {least_bound}; allowed: a whole number of at least 1"
            raise ValueError(msg)
        self.load_factor = load_factor
        self.least_bound = least_bound
        self._without_session = LeastRequests()

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica that ranks highest for the session and is below the bound."""
        if request.session is None:
            return self._without_session.choose(request, replicas, rng)
        open_requests = 1 + sum([replica.in_flight for replica in replicas])
        bound = max(self.least_bound, math.ceil(self.load_factor * open_requests / len(replicas)))
        key = _hash_of_session(request.model, request.session)
        home = first = replicas[0]
        home_rank = first_rank = -1
        for replica in replicas:
            rank = _rank(key, _hash_of_name(replica.name))
            if rank > home_rank:
                home, home_rank = replica, rank
            if rank > first_rank and replica.in_flight < bound:
                first, first_rank = replica, rank
        return Choice(first, "session" if first is home else "session_overflow")


def _rank(key: int, name: int) -> int:
    # The finaliser of MurmurHash3, down to its second multiplication: plain integers, so that
    # every Python on every machine ranks alike; `hash` of a string differs in each process.
    x = ((key ^ name) * 0xFF51AFD7ED558CCD) & _MASK
    return ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK


def _hash_of_session(model: str | None, session: str) -> int:
    return _hash(f"{model or ''}\n{session}")


@lru_cache(maxsize=4096)
def _hash_of_name(name: str) -> int:
    return _hash(name)


def _hash(text: str) -> int:
    # Clients may send lone surrogates in JSON: they are as good a key as any other.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
