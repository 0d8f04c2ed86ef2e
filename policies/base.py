"""What a policy sees and what it answers.

A policy is a small class with one pure method, :meth:`Policy.choose`. It gets the facts of one
request and the views of the replicas that could serve it, and answers with one of these replicas
and a reason. It never awaits, never imports ``router``, never reads a clock, and keeps no state
that changes its answers: what it needs to know of the past (who was served last, what is in
flight) stands in the views. So the same object serves live traffic, a simulation and a test.

The options of a policy are the keyword-only parameters of its ``__init__``; their types and
defaults are all the declaration that they need (see ``policies.registry``).
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec and hypothesis read the annotations
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from policies.forecast import Forecast
    from policies.transfer import Transfer


class Role(StrEnum):
    """What a replica is there for, in a fleet that may split requests."""

    PREFILL = "prefill"
    """It computes prompts whose answers come from elsewhere."""
    DECODE = "decode"
    """It answers prompts that were computed elsewhere."""
    BOTH = "both"
    """Either, and whole requests."""


class RequestFacts(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request when it is routed."""

    model: str | None = None
    """The model or adapter asked for, aliases resolved; None when the request names none."""

    prompt_tokens: int = 0
    """Estimated prompt length; exact when the prompt came as token ids."""

    max_output_tokens: int | None = None
    """The client's own bound on the answer, summed over ``choices``; None when it gave none."""

    session: str | None = None
    """Key of the session or user that the request belongs to."""

    priority: int = 0
    """The client's priority; lower is more urgent, as in vLLM."""

    streamed: bool = False
    """Whether the answer is streamed."""

    choices: int = 1
    """How many answers were asked for (``n``)."""

    tenant: str | None = None
    """Whose request it is; tenants share neither caches nor turns in the queue."""

    ttft_slo_s: float | None = None
    """The first token is wanted so soon after the arrival; None: no objective."""

    tpot_slo_s: float | None = None
    """The mean time between output tokens that is wanted; None: no objective."""

    deadline_s: float | None = None
    """So long after its arrival the answer is of no use any more; None: never."""

    prefix: tuple[int, ...] = ()
    """A key for each block of the prompt, from its start: equal keys mean equal text up to the
    end of the block."""

    prefix_block_tokens: int = 0
    """Prompt tokens in one block of ``prefix``."""

    cached: Mapping[str, int] = {}
    """Prompt tokens believed to be in the prefix cache of each replica, by its name; what is not
    listed has none."""

    splits: bool = True
    """Whether one replica may compute its prompt and another answer it."""

    waited_s: float = 0.0
    """How long ago the request arrived."""

    expected_output_tokens: float = 0.0
    """Mean length of the answers to such requests, as far as it was learned, and no more than
    ``max_output_tokens``; 0 when nobody learns."""


class ReplicaView(Protocol):
    """One replica as a policy sees it. All attributes are read-only.

    The polled values are None when the replica does not publish them, or when the last sample is
    too old to be believed; ``in_flight…`` is this router's own bookkeeping and is always there.
    """

    @property
    def name(self) -> str:
        """The replica's unique name."""

    @property
    def running(self) -> int | None:
        """Polled: requests in the engine's current batch."""

    @property
    def waiting(self) -> int | None:
        """Polled: requests in the engine's own queue."""

    @property
    def kv_occupancy(self) -> float | None:
        """Polled: share of the KV cache in use, 0 to 1."""

    @property
    def in_flight(self) -> int:
        """Own attempts that have not ended."""

    @property
    def in_flight_prompt_tokens(self) -> int:
        """Prompt tokens of own attempts that have not ended."""

    @property
    def in_flight_output_tokens(self) -> int:
        """Tokens streamed so far by own attempts that have not ended.

        It lags by a few tokens a stream: the router is told of several at a time.
        """

    @property
    def unseen(self) -> int:
        """Own attempts sent after the last sample was taken: the sample cannot know of them."""

    @property
    def in_flight_prefills(self) -> int:
        """Own attempts that have not streamed a token yet."""

    @property
    def in_flight_prefill_tokens(self) -> int:
        """Uncached prompt tokens of own attempts that have not streamed a token yet."""

    @property
    def kv_tokens(self) -> int | None:
        """Polled: tokens that the KV cache holds in all."""

    @property
    def adapters(self) -> frozenset[str] | None:
        """Polled: adapters (LoRA) that are loaded now."""

    @property
    def forecast(self) -> Forecast | None:
        """What is expected of it, from its learned speed and its own attempts.

        None in fleets that are watched without any learning.
        """

    @property
    def role(self) -> Role:
        """What it is there for; ``both`` in fleets that split nothing."""

    @property
    def serves_whole(self) -> bool:
        """Whether it can serve a request all by itself; engines that split may not, by role."""

    @property
    def zone(self) -> str:
        """Where it stands: KV moves faster inside a zone. Empty: not known, and then all stand in
        one."""

    @property
    def transfer(self) -> Transfer | None:
        """What it takes to bring KV here; None: it takes none from other replicas."""

    @property
    def last_dispatch(self) -> int:
        """Running number of the last attempt sent here, over the whole fleet; 0 for never."""


class Estimate(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a policy expects of one candidate, in parts; kept so that people can ask why."""

    replica: str
    """The candidate's name."""

    queue_s: float = 0.0
    """Until its prefill could begin: what is ahead of it."""

    prefill_s: float = 0.0
    """Its own prefill, of uncached tokens only."""

    decode_s: float = 0.0
    """From the first token to the last."""

    kv_wait_s: float = 0.0
    """Until its KV would fit."""

    cached_tokens: int = 0
    """Prompt tokens that need not be computed."""

    harm: float = 0.0
    """Objectives expected to be missed because of this placement, its own and others'."""

    cost: float = 0.0
    """What is compared: the least one wins."""

    prefill_replica: str = ""
    """Where the prompt would be computed, if not on ``replica``; ``queue_s``, ``prefill_s`` and
    ``cached_tokens`` are then those there."""

    transfer_s: float = 0.0
    """Until the KV has come from there."""


class Choice(msgspec.Struct, frozen=True, gc=False):
    """A policy's answer."""

    replica: ReplicaView
    """One of the candidates given."""

    reason: str
    """Why, in a word or two; a constant, so that it costs nothing."""

    hold: bool = False
    """Keep the request in the router for now: ``replica`` would be best, but would only queue it
    or do harm. The policy is asked again when something has changed."""

    ttft_s: float | None = None
    """Expected time to first token from now on; None when the policy does not estimate it."""

    prefill: ReplicaView | None = None
    """Another of the candidates, that computes the prompt for ``replica``: the request is split.
    None: it is served whole."""

    transfer_s: float = 0.0
    """How long the KV is expected to be on its way from ``prefill`` to ``replica``."""

    estimates: tuple[Estimate, ...] = ()
    """The candidates that were weighed, the best first; empty when the policy does not estimate.
    Of a large fleet the best few are enough."""


class Policy(Protocol):
    """The interface that every policy has, built-in or plugin.

    One that looks neither at ``prefix`` nor at ``cached`` may say so with a class attribute,
    ``reads_prefix = False``: both are left empty then, which saves time with each request.
    """

    def choose(self, request: RequestFacts, replicas: Sequence[ReplicaView], rng: Random) -> Choice:
        """Pick the replica for ``request``.

        Args:
            request: The facts of the request.
            replicas: The candidates, never empty, in a stable order.
            rng: The only allowed source of chance; seeded by who drives the policy.

        Returns:
            One of ``replicas`` and the reason.
        """
