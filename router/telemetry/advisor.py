"""Tells the operator, in the log, what the router has learned of the engines' settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from router.core.advice import better_budget_tokens

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from router.core.dispatcher import Dispatcher
    from router.core.replica import Replica

log = logging.getLogger("pointsman.advice")

INTERVAL_S: Final = 60.0


class Advisor:
    """Looks at all replicas now and then; says each thing once a replica.

    Args:
        loop: The event loop.
        dispatcher: Whose fleet it is.
        tpot_s: The objective of most answers; None: there is none, and nothing to say.
    """

    def __init__(
        self, loop: AbstractEventLoop, dispatcher: Dispatcher, tpot_s: float | None
    ) -> None:
        self._loop = loop
        self._dispatcher = dispatcher
        self._tpot_s = tpot_s
        self._told: set[Replica] = set()
        self._timer: TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._loop.call_later(INTERVAL_S, self._ring)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Say what is new."""
        if self._tpot_s is None:
            return
        for replica in self._dispatcher.fleet.replicas.values():
            if replica in self._told or replica.forecast is None:
                continue
            tokens = better_budget_tokens(replica.forecast, self._tpot_s)
            if tokens is not None:
                self._told.add(replica)
                log.warning(
                    "%s: %.0f %% of its streams miss %.0f ms a token, though steps without a "
                    "prompt take %.0f ms: its token budget of a step should be about %d "
                    "(vLLM: --max-num-batched-tokens, SGLang: --chunked-prefill-size)",
                    replica.name,
                    100 * replica.forecast.late_share,
                    1000 * self._tpot_s,
                    1000 * replica.forecast.step_s,
                    tokens,
                )

    def _ring(self) -> None:
        self.look()
        self.start()
