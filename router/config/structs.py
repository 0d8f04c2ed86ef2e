"""The configuration: one YAML file, decoded strictly into these structs.

The docstring under each field is what ``pointsman config`` prints above it; the kinds of numbers
stand in ``bounds``, the structs on dealing with failure in ``resilience``.
"""

from __future__ import annotations

import msgspec

from policies.base import Role
from router.addresses import Address, parse_replica_url
from router.config.bounds import Count, Port, Positive, Seconds, Span
from router.config.resilience import GrayConfig, HealthConfig, RetryConfig, StallConfig
from router.config.splitting import SplitConfig

LOG_LEVELS = ("debug", "info", "warning", "error")
ROLES = tuple(role.value for role in Role)


class ConfigError(ValueError):
    """A mistake in the configuration; ``str()`` is one line.

    Args:
        problem: What is wrong, and what is allowed.
        path: Key path of the culprit, such as ``$.replicas[0].url``.
        where: The file, or file and line; set once it is known.
    """

    def __init__(self, problem: str, *, path: str | None = None, where: str | None = None) -> None:
        line = ": ".join(part for part in (where, path, problem) if part)
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))
        self.problem = problem
        self.path = path
        self.where = where


class ReplicaConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One replica."""

    url: str
    """Base URL of the replica: http://host:port, or http+unix:///path/to/socket."""

    name: str = ""
    """Its name in metrics, logs and the x-pointsman-replica header; host:port when left out."""

    engine: str = "auto"
    """auto, vllm, sglang, tgi, trtllm, llamacpp or generic (which publishes no metrics)."""

    health_path: str = ""
    """Where its health is asked for; that of its engine (/health) when left out."""

    kv_events: str = ""
    """Where it publishes its KV cache events over ZMQ, as vLLM and SGLang can: tcp://host:port or
    ipc:///path. Left empty, what its cache holds is estimated."""

    role: str = "both"
    """What it is there for: prefill (prompts whose answers come from elsewhere), decode (answers to
    prompts that were computed elsewhere), or both, and whole requests."""

    zone: str = ""
    """Where it stands; KV moves faster inside a zone. Left empty, all stand in one."""

    bootstrap_port: Port = 8998
    """Where it tells others how to fetch KV from it (kv_dialect sglang and mooncake)."""

    kv_address: str = ""
    """Where its KV connector listens, host:port (kv_dialect p2p)."""

    @property
    def for_role(self) -> Role:
        """What it is there for."""
        return Role(self.role)

    @property
    def address(self) -> Address:
        """Where it listens.

        Raises:
            AddressError: The URL is none that a replica may have.
        """
        return parse_replica_url(self.url)

    @property
    def full_name(self) -> str:
        """Its name, made from the address when none was given."""
        return self.name or str(self.address)


class PolicyConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who chooses the replica."""

    name: str = "least_estimated_completion"
    """A name that `pointsman policies` lists, or package.module:Class. In a fleet that splits
    requests the default is prefill_decode."""

    options: dict[str, object] = {}
    """The policy's own options; `pointsman policies` lists them."""


class PollingConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How replicas are watched."""

    interval_s: Seconds = 0.25
    """Time between two looks at a replica, spread by jitter."""

    timeout_s: Seconds = 2.0
    """A look that takes longer has failed."""

    max_per_s: Positive = 400
    """Looks per second at the whole fleet; a large fleet is looked at less often."""

    sample_lifetime_s: Seconds = 2.0
    """Metrics older than this are not believed any more."""

    generation_s: Span = 0.0
    """A replica that has had no request for so long, or has just come up, is asked for one token;
    if it makes none it is not ready. 0: only its health page is asked."""

    generation_timeout_s: Seconds = 10.0
    """How long that token may take."""


class SloConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How fast answers are wanted."""

    default: str = "ttft=2s+0.25ms@4096,tpot=60ms"
    """Time to first token and mean time between output tokens that are wanted where nothing below
    says otherwise; one of the two may be left out, and none stands for no objective at all.
    2s+0.25ms@4096: 2 s, and 0.25 ms more for each prompt token above 4096."""

    models: dict[str, str] = {}
    """Objectives of models and adapters, by the name that replicas serve: model: objective."""

    classes: dict[str, str] = msgspec.field(
        default_factory=lambda: {"batch": "ttft=60s,tpot=200ms"}
    )
    """Objectives that a request asks for by name, in the header x-pointsman-slo; they win over its
    model's."""


class HoldConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Requests that wait in the router for a better moment."""

    enabled: bool = True
    """false: each request is sent at once, even where it would only queue or do harm."""

    max_requests: Positive = 10_000
    """Most requests that may wait; past it the least urgent one gets 429."""

    max_tokens: Positive = 50_000_000
    """Most prompt tokens that may wait, in all."""

    shed_late: bool = False
    """true: a request that would wait past its time to first token is refused (429) as soon as that
    is seen, mostly as it arrives; false: it is served late."""

    outage_s: Span = 30.0
    """So long a request waits when no replica can serve it, before it gets 503; 0: not at all."""


class DrainConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What `pointsman drain` must leave."""

    min_ready: Count = 1
    """Replicas that stay in service, unless the drain is forced."""


class LimitsConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Bounds on what clients and replicas may do."""

    max_body_bytes: Positive = 32 * 1024 * 1024
    """Largest request body; a larger one gets 413."""

    max_buffered_bytes: Positive = 1024 * 1024 * 1024
    """Largest sum of all request bodies held at once; past it new ones get 503."""

    max_connections: Count = 0
    """Most client connections at once; 0: half of the file descriptors allowed."""

    head_timeout_s: Seconds = 10.0
    """A request head must be complete this long after its first byte (408)."""

    body_timeout_s: Seconds = 60.0
    """A request body must make progress at least this often (408)."""

    keep_alive_s: Seconds = 75.0
    """An idle client connection is closed after this time."""

    connect_timeout_s: Seconds = 2.0
    """A replica that takes longer to accept a connection is passed over."""

    upstream_idle_s: Seconds = 4.0
    """An idle connection to a replica is closed after this time; uvicorn closes after 5 s."""

    write_timeout_s: Seconds = 60.0
    """A client that reads nothing for this long, with its buffer full, is dropped."""


class ContinuationConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Streams that break are continued on another replica."""

    enabled: bool = True
    """Whether they are; where not, a stream that breaks ends with an error event."""

    stream_bytes: Positive = 1024 * 1024
    """So much may be remembered of one answer, and as much of its request; a stream past it is
    relayed, but not continued. Events are packed: 10 to 15 bytes a token."""

    total_bytes: Positive = 256 * 1024 * 1024
    """So much may be remembered of all streams and their requests together."""


class Config(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The whole file."""

    listen: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.1:8080"])
    """Where clients connect: host:port, [v6]:port, or unix:/path/to/socket."""

    admin: str = "127.0.0.1:9090"
    """Where operators connect: /metrics, /fleet, /health."""

    replicas: list[ReplicaConfig] = []
    """The fleet."""

    split: SplitConfig = SplitConfig()
    """Requests of which one replica computes the prompt and another answers."""

    policy: PolicyConfig = PolicyConfig()
    """Who chooses the replica."""

    slo: SloConfig = SloConfig()
    """How fast answers are wanted. Policies that can, place and delay requests so that as many as
    possible are that fast."""

    hold: HoldConfig = HoldConfig()
    """Requests that wait in the router for a better moment, the most urgent first."""

    headroom: Count = 0
    """Only what the fleet could still carry after losing so many of its largest replicas is let in;
    what is more gets 429 and Retry-After, the least urgent priorities first. 0: all is let in."""

    warm_up_prompts: Count = 8
    """So many of the beginnings that most prompts share, of 1024 tokens or more, are computed by a
    replica that comes up, one after another; bodies of requests are kept for that. 0: none."""

    drain: DrainConfig = DrainConfig()
    """What `pointsman drain` must leave."""

    tenant_header: str = ""
    """The request header that tells whose a request is, such as x-tenant. Tenants take turns in
    the queue. Left empty, all requests are one tenant's."""

    decision_header: bool = False
    """true: each answer tells in the header x-pointsman-decision why it comes from the replica that
    it comes from; false: only answers to requests with the header x-pointsman-explain."""

    isolate_tenants: bool = True
    """true: no request is sent to a replica for what another tenant's prompts left in its cache:
    by the time that takes one could tell what others ask. false: tenants share caches."""

    aliases: dict[str, str] = {}
    """Names that clients may use for models: alias: model."""

    forward_paths: list[str] = []
    """Paths forwarded beside the inference API: /path, or /path/* for all below it."""

    polling: PollingConfig = PollingConfig()
    """How replicas are watched."""

    health: HealthConfig = HealthConfig()
    """When a replica is taken out of service for what its requests say, and how it comes back."""

    stall: StallConfig = StallConfig()
    """How long a replica that has work may make no token at all before it is ejected, whatever its
    health endpoint says. To the first three is added what its work is expected to take."""

    gray: GrayConfig = GrayConfig()
    """Replicas that work, but slower than they did, unlike their peers."""

    retry: RetryConfig = RetryConfig()
    """Requests that are sent again, to another replica."""

    limits: LimitsConfig = LimitsConfig()
    """Bounds on what clients and replicas may do."""

    continuation: ContinuationConfig = ContinuationConfig()
    """Streams that break are continued on another replica."""

    log_level: str = "info"
    """debug, info, warning or error."""

    seed: int | None = None
    """Seed of the policies' chance; for tests."""
