"""From the configuration, as operators write it, to the settings of the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.base import Role
from policies.transfer import Transfer, token_s
from router.config.structs import PolicyConfig
from router.core.admission import HeadroomSettings
from router.core.dispatcher import Limits
from router.core.drain_rules import DrainSettings
from router.core.gray import GraySettings
from router.core.health import HealthSettings
from router.core.hold import HoldLimits
from router.core.replica import PartInSplits
from router.core.retry import RetrySettings
from router.core.slow_start import SlowStartSettings
from router.core.stall import StallSettings
from router.split.catalogue import DIALECTS

if TYPE_CHECKING:
    from router.config.splitting import SplitConfig
    from router.config.structs import Config

SPLITS = "prefill_decode"
"""The policy of a fleet that splits requests, unless another one was asked for."""


def health_settings(config: Config) -> HealthSettings:
    """When a replica is taken out of service, and how it comes back."""
    health = config.health
    return HealthSettings(
        failures_in_a_row=health.failures_in_a_row,
        failure_share=health.failure_share,
        failure_window_s=health.failure_window_s,
        failure_window_requests=health.failure_window_requests,
        eject_s=health.eject_s,
        max_eject_s=health.max_eject_s,
        max_ejected=health.max_ejected,
        panic_share=health.panic_share,
        slow_start=SlowStartSettings(warm_s=health.slow_start_s),
    )


def dispatcher_limits(config: Config) -> Limits:
    """Bounds of the dispatcher."""
    stall, gray = config.stall, config.gray
    return Limits(
        retry=_retry_settings(config),
        stall=StallSettings(
            least_s=stall.least_s,
            first_token_s=stall.first_token_s,
            whole_answer_s=stall.whole_answer_s,
            most_s=stall.most_s,
            stuck_s=stall.stuck_s,
        ),
        gray=GraySettings(slow=gray.slow, eject=gray.eject, looks=gray.looks),
        drain=DrainSettings(min_ready=config.drain.min_ready),
        headroom=HeadroomSettings(lose=config.headroom),
        hedge_after_s=config.retry.hedge_after_s,
    )


def chosen_policy(config: Config) -> PolicyConfig:
    """Who chooses the replica."""
    if config.split.kv_dialect and config.policy.name == PolicyConfig().name:
        return PolicyConfig(name=SPLITS, options=config.policy.options)
    return config.policy


def part_in_splits(role: Role, split: SplitConfig) -> PartInSplits:
    """What a replica's role means for the core, in a fleet that splits requests."""
    whole = role is Role.BOTH or DIALECTS[split.kv_dialect].serves_whole
    transfer = None
    if role is not Role.PREFILL:
        transfer = Transfer(token_s(split.kv_bytes_per_token, split.link_gbps * 1e9 / 8))
    return PartInSplits(role, serves_whole=whole, transfer=transfer)


def hold_limits(config: Config) -> HoldLimits:
    """How much may wait in the router."""
    hold = config.hold
    return HoldLimits(
        enabled=hold.enabled,
        max_requests=hold.max_requests,
        max_tokens=hold.max_tokens,
        shed_late=hold.shed_late,
        outage_s=hold.outage_s,
    )


def _retry_settings(config: Config) -> RetrySettings:
    retry = config.retry
    return RetrySettings(
        max_attempts=retry.max_attempts,
        statuses=frozenset(retry.statuses),
        budget_share=retry.share,
        budget_least=retry.minimum,
        status_share=retry.share,
    )
