"""The data plane: what all client connections share, and the performing of actions."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from router.api.body import Reading
from router.api.errors import error_body
from router.api.objectives import Objectives
from router.api.routes import Dialect, Routes
from router.core.actions import Abort, Actions, Cancel, Hedge, Refuse, Send
from router.core.hot_prompts import HotPrompts
from router.proxy.answers import Answer
from router.proxy.client import ClientConnection
from router.proxy.continuing import Continuations
from router.proxy.exchange import Exchange
from router.proxy.heads import MODELS_PATH, KnownRequest, RequestHeads
from router.proxy.hedged import HedgedExchange
from router.proxy.pool import UpstreamPool
from router.proxy.split import SplitExchange
from router.proxy.splits import make_splits
from router.proxy.understanding import Understanding
from router.telemetry.status import Traffic

if TYPE_CHECKING:
    from random import Random

    from router.config.structs import Config
    from router.core.dispatcher import Dispatcher
    from router.core.request import Request
    from router.proxy.client import MakeExchange

SWEEP_S = 0.25
"""How often deadlines are looked at."""

_NOT_FOUND = (
    "This path is not served here. Paths beside the inference API must be listed in"
    " `forward_paths`."
)


class DataPlane:
    """Accepts clients and relays their requests as the dispatcher decides.

    Args:
        config: Limits, aliases and forwarded paths.
        dispatcher: Who decides.
        rng: Source of request ids.
        loop: The event loop.
    """

    def __init__(
        self,
        config: Config,
        dispatcher: Dispatcher,
        rng: Random,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.limits = config.limits
        self.aliases = dict(config.aliases)
        self.dispatcher = dispatcher
        self.continuations = Continuations(config.continuation)
        self.hot = HotPrompts(config.warm_up_prompts)
        """What requests have in common."""
        self.stopping = False
        self.buffered_bytes = 0
        self.received_bytes_total = 0
        self.sent_bytes_total = 0
        self.accepted_total = 0
        self.refused_total: dict[int, int] = {}
        self.connections: set[ClientConnection] = set()
        self.now = loop.time
        self.pool = UpstreamPool(
            loop,
            connect_timeout_s=config.limits.connect_timeout_s,
            idle_s=config.limits.upstream_idle_s,
        )
        self.splits = make_splits(config, rng)
        """How requests are split; None: nothing is."""
        slo = config.slo
        objectives = Objectives(slo.default, slo.models, slo.classes)
        prefixes = getattr(dispatcher.chooser.policy, "reads_prefix", True)
        self.understanding = Understanding(
            reading=Reading(prefixes=prefixes, bytes_per_token=dispatcher.estimator.token_ratio.of),
            objectives=objectives,
            split_paths=self.splits.dialect.paths if self.splits is not None else None,
            isolated=config.isolate_tenants,
        )
        self.request_heads = RequestHeads(
            Routes(config.forward_paths),
            tenant_field=config.tenant_header.lower().encode() or None,
            classes=objectives.classes,
            explained=config.decision_header,
        )
        self._rng = rng
        self._loop = loop
        self._drained = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        self._max_connections = config.limits.max_connections
        self.exchange = self._exchanges(hedged=config.retry.hedge_after_s > 0)
        """Makes what serves a request."""

    def _exchanges(self, *, hedged: bool) -> MakeExchange:
        """Each way costs those that do not take it nothing."""
        if self.splits is not None:
            return partial(SplitExchange, splits=self.splits)
        return HedgedExchange if hedged else Exchange

    # -- life ---------------------------------------------------------------------------------

    def protocol(self) -> ClientConnection:
        """A protocol for one new client connection."""
        return ClientConnection(self)

    def start(self) -> None:
        """Begin to watch deadlines."""
        self._sweep()

    async def stop(self, grace_s: float) -> None:
        """Let answers finish for up to ``grace_s``, then drop what is left."""
        self.stopping = True
        for connection in list(self.connections):
            connection.stop()
        if self.connections:
            self._drained.clear()
            try:
                async with asyncio.timeout(grace_s):
                    await self._drained.wait()
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.pool.close()

    def _sweep(self) -> None:
        now = self.now()
        late = [c for c in self.connections if c.deadline_s is not None and c.deadline_s < now]
        for connection in late:
            connection.deadline_missed()
        self.pool.sweep(now)
        self.perform(self.dispatcher.tick(now))
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def traffic(self) -> Traffic:
        """Gauges and counters, for the admin plane."""
        pool = self.pool
        return Traffic(
            client_connections=len(self.connections),
            client_connections_total=self.accepted_total,
            upstream_idle=pool.idle_count,
            upstream_busy=pool.open_count - pool.idle_count + pool.connecting_count,
            buffered_bytes=self.buffered_bytes,
            received_bytes_total=self.received_bytes_total,
            sent_bytes_total=self.sent_bytes_total,
            refused_total=self.refused_total,
            continuation_bytes=self.continuations.budget.held_bytes,
            continuations_total=self.continuations.outcomes,
            continuation_requests_total=self.continuations.requests,
            not_continued_total=self.continuations.not_continued,
        )

    # -- actions ------------------------------------------------------------------------------

    def perform(self, actions: Actions) -> None:
        """Do what the dispatcher asks."""
        for action in actions:
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Hedge):
                cast("HedgedExchange", _exchange(action.attempt.request)).hedge(action.attempt)
            elif isinstance(action, Refuse):
                _exchange(action.request).refuse(action)
            elif isinstance(action, Cancel):
                _exchange(action.attempt.request).cancel(action.attempt)
            else:
                self._abort(action)

    def _send(self, action: Send) -> None:
        exchange, attempt, prefill = (
            _exchange(action.attempt.request),
            action.attempt,
            action.prefill,
        )
        if prefill is None:
            exchange.send(attempt, continues=action.continues)
        else:
            split = cast("SplitExchange", exchange)  # nothing is split where there is no other
            split.send_split(attempt, prefill, continues=action.continues)

    def _abort(self, action: Abort) -> None:
        _exchange(action.request).abort(action)

    # -- what client connections need -----------------------------------------------------------

    def connection_opened(self, connection: ClientConnection) -> bool:
        """A client connected; False if there are too many already."""
        self.connections.add(connection)
        self.accepted_total += 1
        return not self._max_connections or len(self.connections) <= self._max_connections

    def connection_closed(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._drained.set()

    def hold_bytes(self, count: int) -> bool:
        """Account for bytes of a request body; False, and not counted, if that is too much."""
        if self.buffered_bytes + count > self.limits.max_buffered_bytes:
            return False
        self.buffered_bytes += count
        self.received_bytes_total += count
        return True

    def release_bytes(self, count: int) -> None:
        """So many bytes of a request body are held no more."""
        self.buffered_bytes -= count

    def request_id(self) -> bytes:
        """A new request id."""
        return b"%032x" % self._rng.getrandbits(128)

    def refusal(self, request: KnownRequest | None, status: int, code: str, message: str) -> Answer:
        """An error answer in the shape that the client expects."""
        route = request.route if request is not None else None
        dialect = route.dialect if route is not None else Dialect.OPENAI
        return self._error(dialect, status, code, message)

    def own_answer(self, request: KnownRequest) -> Answer:
        """The router's own answer to a request that is not forwarded."""
        path = request.path
        if path == MODELS_PATH:
            return Answer(200, self._model_list())
        if path not in {b"/health", b"/ready"}:
            return self._error(Dialect.OPENAI, 404, "path_not_found", _NOT_FOUND)
        if request.head.method not in {b"GET", b"HEAD"}:
            message = "Only GET and HEAD are served here."
            allow = b"\r\nAllow: GET, HEAD"
            return self._error(Dialect.OPENAI, 405, "method_not_allowed", message, allow)
        if path == b"/health":
            return Answer(200, b'{"status":"ok"}')
        if self.dispatcher.fleet.any_ready() and not self.stopping:
            return Answer(200, b'{"status":"ready"}')
        message = "The router is stopping." if self.stopping else "No replica is ready."
        body = error_body(Dialect.OPENAI, 503, "not_ready", message)
        return Answer(503, body, lines=b"\r\nRetry-After: 1")

    def _error(
        self, dialect: Dialect, status: int, code: str, message: str, lines: bytes = b""
    ) -> Answer:
        self.refused_total[status] = self.refused_total.get(status, 0) + 1
        return Answer(status, error_body(dialect, status, code, message), lines=lines)

    def _model_list(self) -> bytes:
        """The union of what ready replicas list, and the aliases of what is among it."""
        entries: dict[str, object] = {}
        for replica in self.dispatcher.fleet.replicas.values():
            if replica.ready:
                for name, entry in replica.model_entries.items():
                    entries.setdefault(name, msgspec.Raw(entry))
        for alias, model in sorted(self.aliases.items()):
            if model in entries:
                made = {"id": alias, "object": "model", "owned_by": "pointsman", "root": model}
                entries.setdefault(alias, made)
        return msgspec.json.encode({"object": "list", "data": list(entries.values())})


def _exchange(request: Request) -> Exchange:
    return cast("Exchange", request.driver)
