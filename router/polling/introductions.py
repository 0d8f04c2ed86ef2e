"""What replicas say of themselves to others that fetch KV from them.

SGLang tells its role and its bootstrap port at ``/server_info``; vLLM's Mooncake connector tells
its engine's name at ``/query`` of its bootstrap port. Both are asked when a replica comes up, for
after a restart they may be other ones.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from policies.base import Role
from router.polling.client import ReplicaClient
from router.polling.connection import LookFailedError
from router.polling.errands import Errands

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.core.replica import Replica
    from router.split.base import Peer

log = logging.getLogger("pointsman.polling")

TIMEOUT_S: Final = 2.0
PAUSE_S: Final = 1.0
"""Until the next attempt, where one failed."""

_SGLANG_PATHS: Final = ("/server_info", "/get_server_info")


class _SglangInfo(msgspec.Struct):
    disaggregation_mode: str | None = None
    disaggregation_bootstrap_port: int | None = None


class _MooncakeRank(msgspec.Struct):
    engine_id: str


class Introductions:
    """Asks replicas that come up.

    Args:
        dialect: Name of the dialect in which requests are split; empty: nobody need be asked.
        peers: Where what they say is noted, by their names.
        role_told: Called with a replica and what it says that it is there for.
    """

    def __init__(
        self, dialect: str, peers: dict[str, Peer], role_told: Callable[[Replica, Role], None]
    ) -> None:
        self._ask = {"sglang": self._sglang, "mooncake": self._mooncake}.get(dialect)
        self._peers = peers
        self._role_told = role_told
        self._errands = Errands("asks who it is:")

    def begin(self, replica: Replica) -> None:
        """A replica came up."""
        if self._ask is not None:
            self._errands.begin(replica, self._meet)

    async def aclose(self) -> None:
        """Ask nobody any more."""
        await self._errands.aclose()

    async def _meet(self, replica: Replica) -> None:
        told = ""
        while self._ask is not None and replica.health.reachable:
            try:
                await self._ask(replica)
            except (LookFailedError, msgspec.DecodeError) as failure:
                if str(failure) != told:
                    told = str(failure)
                    log.warning("%s: how its KV is fetched is not known: %s", replica.name, told)
                await asyncio.sleep(PAUSE_S)
            else:
                return

    async def _sglang(self, replica: Replica) -> None:
        async with ReplicaClient(replica.url, timeout_s=TIMEOUT_S) as client:
            for path in _SGLANG_PATHS:
                answer = await client.get(path)
                if answer.ok:
                    info = msgspec.json.decode(answer.body, type=_SglangInfo)
                    break
            else:
                msg = f"{' and '.join(_SGLANG_PATHS)} are not there"
                raise LookFailedError(msg)
        if info.disaggregation_bootstrap_port:
            self._peers[replica.name].bootstrap_port = info.disaggregation_bootstrap_port
        mode = info.disaggregation_mode
        if mode in {Role.PREFILL.value, Role.DECODE.value}:
            self._role_told(replica, Role(mode))

    async def _mooncake(self, replica: Replica) -> None:
        if replica.role is Role.DECODE:
            return
        peer = self._peers[replica.name]
        base = f"http://{peer.host}:{peer.bootstrap_port}"
        async with ReplicaClient(base, timeout_s=TIMEOUT_S) as client:
            answer = await client.get("/query")
        if not answer.ok:
            msg = f"{base}/query answers {answer.status}"
            raise LookFailedError(msg)
        ranks = msgspec.json.decode(answer.body, type=dict[str, _MooncakeRank])
        first = min(ranks, default=None)
        if first is None:
            msg = f"{base}/query names no engine"
            raise LookFailedError(msg)
        peer.engine_id = ranks[first].engine_id
