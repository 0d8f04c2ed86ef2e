"""Rules of the configuration that types cannot express."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.slo import SloError
from router.addresses import Address, AddressError, parse_address
from router.api.objectives import read_objective
from router.config.split_rules import check_split
from router.config.structs import LOG_LEVELS, ROLES, Config, ConfigError
from router.engines.catalogue import NAMES
from router.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NAME = re.compile(r"[A-Za-z0-9._:/@\[\]%-]{1,128}")
_FIELD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SLO_CLASS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATH = re.compile(r"/[\x21-\x7e]*")


def check_config(config: Config) -> None:
    """Check a configuration, whether it came from a file, from flags, or from both.

    Raises:
        ConfigError: The first rule that is broken, with the path of the key.
    """
    _check_addresses(config)
    _check_replicas(config)
    check_split(config)
    _check_slo(config)
    _check_tenant_header(config.tenant_header)
    _check_aliases(config)
    _check_forward_paths(config)
    _check_word(config.log_level, LOG_LEVELS, "$.log_level")
    if not config.policy.name:
        raise ConfigError("the name is missing; `pointsman policies` lists them", path="$.policy")
    _check_order(config)
    _check_statuses(config)


def _check_order(config: Config) -> None:
    """Of some pairs of keys one must not be less than the other."""
    limits, health, stall, gray = config.limits, config.health, config.stall, config.gray
    pairs = [
        (
            "limits.max_buffered_bytes",
            limits.max_buffered_bytes,
            "max_body_bytes",
            limits.max_body_bytes,
        ),
        ("health.max_eject_s", health.max_eject_s, "eject_s", health.eject_s),
        ("stall.most_s", stall.most_s, "least_s", stall.least_s),
        ("stall.most_s", stall.most_s, "first_token_s", stall.first_token_s),
        ("gray.eject", gray.eject, "slow", gray.slow),
    ]
    for path, value, lesser, bound in pairs:
        if value < bound:
            raise ConfigError(f"must not be less than {lesser} ({bound:g})", path=f"$.{path}")


def _check_statuses(config: Config) -> None:
    for index, status in enumerate(config.retry.statuses):
        if 429 < status < 500:
            msg = f"{status} is not tried elsewhere: only 429 and 5xx may be"
            raise ConfigError(msg, path=f"$.retry.statuses[{index}]")


def _check_addresses(config: Config) -> None:
    if not config.listen:
        raise ConfigError("at least one address is needed", path="$.listen")
    seen: dict[Address, str] = {}
    named = [(f"$.listen[{i}]", text) for i, text in enumerate(config.listen)]
    for path, text in [*named, ("$.admin", config.admin)]:
        try:
            address = parse_address(text)
        except AddressError as error:
            raise ConfigError(str(error), path=path) from error
        if address in seen and (address.port or address.path):
            raise ConfigError(f"{text!r} is taken by {seen[address]} already", path=path)
        seen[address] = path


def _check_replicas(config: Config) -> None:
    seen: dict[str, str] = {}
    for index, replica in enumerate(config.replicas):
        path = f"$.replicas[{index}]"
        try:
            name = replica.full_name
            _ = replica.address  # a given name does not excuse a wrong address
        except AddressError as error:
            raise ConfigError(str(error), path=f"{path}.url") from error
        if not _NAME.fullmatch(name):
            msg = f"{name!r} is no name: letters, digits and . _ : / @ [ ] % -, at most 128 of them"
            raise ConfigError(msg, path=f"{path}.name")
        if name in seen:
            hint = "" if replica.name else "; give them names when both are meant"
            raise ConfigError(f"{name!r} is the name of {seen[name]} already{hint}", path=path)
        seen[name] = path
        _check_word(replica.engine, NAMES, f"{path}.engine")
        _check_word(replica.role, ROLES, f"{path}.role")
        if replica.health_path and not _PATH.fullmatch(replica.health_path):
            msg = "must be a path of an HTTP request: /, then visible ASCII characters"
            raise ConfigError(msg, path=f"{path}.health_path")
        if replica.kv_events:
            _check_kv_events(replica.kv_events, f"{path}.kv_events")


def _check_kv_events(text: str, path: str) -> None:
    scheme, _, rest = text.partition("://")
    if scheme == "ipc" and rest.startswith("/") and "\0" not in rest:
        return
    if scheme != "tcp":
        raise ConfigError(f"{text!r}: expected tcp://host:port or ipc:///path", path=path)
    try:
        address = parse_address(rest)
    except AddressError as error:
        raise ConfigError(str(error), path=path) from error
    if not address.port:
        raise ConfigError(f"{text!r}: the port of the replica is missing", path=path)


def _check_slo(config: Config) -> None:
    slo = config.slo
    named = [("$.slo.default", slo.default)]
    named += [(f"$.slo.models.{name}", text) for name, text in slo.models.items()]
    named += [(f"$.slo.classes.{name}", text) for name, text in slo.classes.items()]
    for path, text in named:
        try:
            read_objective(text)
        except SloError as error:
            raise ConfigError(f"{error}; none: no objective", path=path) from error
    for name in slo.classes:
        if not _SLO_CLASS.fullmatch(name):
            msg = f"{name!r} is no name of a class: letters, digits, . _ and -, at most 64 of them"
            raise ConfigError(msg, path="$.slo.classes")
    for name in slo.models:
        if not name or name in config.aliases:
            msg = f"{name!r} is not a model that replicas serve"
            if name in config.aliases:
                msg += f" but an alias of {config.aliases[name]!r}"
            raise ConfigError(msg, path="$.slo.models")


def _check_tenant_header(name: str) -> None:
    if name and not _FIELD.fullmatch(name):
        msg = f"{name!r} is no name of a header: letters, digits and -, as in x-tenant"
        raise ConfigError(msg, path="$.tenant_header")


def _check_aliases(config: Config) -> None:
    for alias, model in config.aliases.items():
        path = f"$.aliases.{alias}"
        if not alias or not model:
            raise ConfigError("neither an alias nor its model may be empty", path=path)
        if model in config.aliases:
            msg = f"{model!r} is an alias itself; name the model that replicas serve"
            raise ConfigError(msg, path=path)


def _check_forward_paths(config: Config) -> None:
    for index, text in enumerate(config.forward_paths):
        path = f"$.forward_paths[{index}]"
        if not _PATH.fullmatch(text) or {"?", "#", "%", "\\"} & set(text):
            msg = f"{text!r} is no path: it starts with / and holds no query and no % escape"
            raise ConfigError(msg, path=path)
        if "*" in text.removesuffix("/*") or text == "/*":
            msg = f"{text!r}: * stands only at the end, after a folder: /path/*"
            raise ConfigError(msg, path=path)
        _check_segments(text.removesuffix("/*").split("/")[1:], text, path)


def _check_segments(segments: Sequence[str], text: str, path: str) -> None:
    if {".", ".."} & set(segments) or "" in segments[:-1]:
        raise ConfigError(f"{text!r}: a path has no empty, . or .. segments", path=path)


def _check_word(word: str, allowed: Iterable[str], path: str) -> None:
    if word not in allowed:
        hint = did_you_mean(word, allowed)
        raise ConfigError(f"{word!r} is not one of {', '.join(allowed)}{hint}", path=path)
