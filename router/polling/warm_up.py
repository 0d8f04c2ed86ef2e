"""What a replica that has come up computes before its first requests, and beside them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from msgspec import DecodeError

from router.api.one_token import one_token
from router.polling.client import ReplicaClient
from router.polling.connection import LookFailedError
from router.polling.errands import Errands

if TYPE_CHECKING:
    from router.core.hot_prompts import HotPrompts
    from router.core.prefix_index import PrefixIndex
    from router.core.replica import Replica

log = logging.getLogger("pointsman.polling")

TIMEOUT_S: Final = 30.0
"""A replica that needs longer for one prompt has other things to do."""


class WarmUp:
    """Has the prompts that most requests begin with computed by replicas that come up.

    One at a time, so that a live request waits for one of them at most.

    Args:
        hot: What to compute.
        index: Told of what was.
    """

    def __init__(self, hot: HotPrompts, index: PrefixIndex) -> None:
        self.hot = hot
        self.outcomes = {"ok": 0, "failed": 0}
        """Prompts that replicas were asked to compute, by what became of it."""
        self._index = index
        self._errands = Errands("warm-up of")

    def begin(self, replica: Replica) -> None:
        """A replica came up, with an empty cache."""
        if self.hot.hottest(replica.models):
            self._errands.begin(replica, self._warm)

    async def aclose(self) -> None:
        """Warm nobody any more."""
        await self._errands.aclose()

    async def _warm(self, replica: Replica) -> None:
        computed = 0
        async with ReplicaClient(replica.url, timeout_s=TIMEOUT_S) as client:
            for prompt in self.hot.hottest(replica.models):
                if not replica.health.reachable:
                    break
                keys, name = prompt.prefix, replica.name
                known = self._index.match(keys, prompt.block_tokens).get(name, 0)
                if prompt.sample is None or known >= prompt.tokens:
                    continue
                failure = await _compute(client, *prompt.sample)
                if failure is not None:
                    self.outcomes["failed"] += 1
                    log.warning("%s: its warm-up ends early: %s", name, failure)
                    break
                self.outcomes["ok"] += 1
                computed += prompt.tokens
                sent = self._index.sent(name, keys, prompt.block_tokens)
                self._index.ended(name, sent, keys, prompt.block_tokens)
        if computed:
            log.info("%s: computed %d tokens that many prompts begin with", replica.name, computed)


async def _compute(client: ReplicaClient, target: bytes, body: bytes) -> str | None:
    """Have a prompt computed; returns why it was not."""
    path = target.decode("ascii")
    try:
        answer = await client.post(path, one_token(body), TIMEOUT_S)
    except LookFailedError as failure:
        return str(failure)
    except DecodeError as error:
        return f"a request that could be served cannot be read: {error}"
    return None if answer.ok else f"{path} answers {answer.status}"
