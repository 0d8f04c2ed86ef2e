"""Rules of the configuration on splitting requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.base import Role
from router.addresses import AddressError, parse_address
from router.config.structs import Config, ConfigError, ReplicaConfig
from router.nearest import did_you_mean
from router.split.catalogue import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEED_HOST: Final = ("sglang", "mooncake")
"""Dialects in which a decode replica is told where the prefill replica listens."""


def check_split(config: Config) -> None:
    """Check what concerns splitting.

    Raises:
        ConfigError: The first rule that is broken.
    """
    name, replicas = config.split.kv_dialect, config.replicas
    if not name:
        for index, replica in enumerate(replicas):
            if replica.for_role is not Role.BOTH:
                msg = "a role needs $.split.kv_dialect: how the engines move the KV cache"
                raise ConfigError(msg, path=f"$.replicas[{index}].role")
        return
    if name not in DIALECTS:
        hint = did_you_mean(name, DIALECTS)
        msg = f"{name!r} is not one of {', '.join(DIALECTS)}{hint}"
        raise ConfigError(msg, path="$.split.kv_dialect")
    if config.retry.hedge_after_s:
        msg = "a first token cannot be hedged where requests are split; set it to 0"
        raise ConfigError(msg, path="$.retry.hedge_after_s")
    if config.polling.generation_s and not DIALECTS[name].serves_whole:
        msg = f"replicas of kv_dialect {name} make no token alone; set it to 0"
        raise ConfigError(msg, path="$.polling.generation_s")
    if replicas and not _pairs(replicas):
        msg = "no two replicas can split a request: one must prefill, another must decode"
        raise ConfigError(msg, path="$.replicas")
    for index, replica in enumerate(replicas):
        _check_reach(name, replica, f"$.replicas[{index}]")


def _pairs(replicas: Sequence[ReplicaConfig]) -> bool:
    roles = {replica.for_role for replica in replicas}
    return len(replicas) > 1 and roles not in ({Role.PREFILL}, {Role.DECODE})


def _check_reach(dialect: str, replica: ReplicaConfig, path: str) -> None:
    """The other leg's replica must be able to find this one."""
    if (
        dialect in _NEED_HOST
        and replica.for_role is not Role.DECODE
        and replica.address.path is not None
    ):
        msg = "behind a Unix socket no other replica can fetch KV from it; give it host and port"
        raise ConfigError(msg, path=f"{path}.url")
    if dialect != "p2p":
        return
    try:
        address = parse_address(replica.kv_address)
    except AddressError as error:
        msg = "kv_dialect p2p needs the replica's own host:port for KV (--kv-port)"
        raise ConfigError(msg, path=f"{path}.kv_address") from error
    if not address.port:
        raise ConfigError("the port is missing", path=f"{path}.kv_address")
