"""Finds policies: by the names that installed distributions give them, or by module and class.

The built-in policies are entry points of pointsman's own distribution, in the same group that a
plugin uses. Only the policy that is asked for is imported.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from policies.contract import Option, PolicyError, check_class, describe, hint, make

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.base import Policy

__all__ = ["GROUP", "Option", "PolicyError", "PolicyInfo", "available", "load", "look_up"]

GROUP = "pointsman.policies"
"""The entry-point group."""

_MODULE_AND_CLASS = re.compile(r"[\w.]+:[\w.]+")


@dataclass(slots=True, frozen=True)
class PolicyInfo:
    """What ``pointsman policies`` tells of a policy."""

    name: str
    distribution: str
    """Name and version of the distribution that brings it."""

    target: str
    """``module:Class``."""

    summary: str = ""
    """The first line of the class's docstring."""

    options: tuple[Option, ...] = ()
    error: str | None = None
    """Why it cannot be used; None when it can."""

    about: str = ""
    """The class's docstring, without its ``Args`` section."""


def load(spec: str, options: Mapping[str, object]) -> Policy:
    """Make the policy that ``spec`` names.

    Args:
        spec: A name that :func:`available` lists, or ``package.module:Class``. The latter is
            also looked for in the working folder, after everywhere else, so that nothing there
            can stand in for an installed module.
        options: The policy's options by name, as a configuration file gives them.

    Raises:
        PolicyError: No such policy, it breaks the contract, or an option is not allowed.
    """
    try:
        entry = _by_module(spec) if ":" in spec else _by_name(spec)
        return make(_imported(entry), options)
    except PolicyError as error:
        msg = f"policy {spec!r}: {error}"
        raise PolicyError(msg) from error


def available() -> list[PolicyInfo]:
    """Every policy that an installed distribution offers, by name.

    One that cannot be imported or breaks the contract is listed with its error.

    Raises:
        PolicyError: Two distributions offer the same name.
    """
    entries = _scan()
    return [_info(_only(name, entries[name])) for name in sorted(entries)]


def look_up(spec: str) -> PolicyInfo:
    """What there is to tell of the policy that ``spec`` names, as :func:`load` takes it.

    Raises:
        PolicyError: No such policy. One that breaks the contract comes back with its error.
    """
    try:
        return _info(_by_module(spec) if ":" in spec else _by_name(spec))
    except PolicyError as error:
        msg = f"policy {spec!r}: {error}"
        raise PolicyError(msg) from error


def _by_module(spec: str) -> EntryPoint:
    if not _MODULE_AND_CLASS.fullmatch(spec):
        msg = "neither a name that `pointsman policies` lists nor package.module:Class"
        raise PolicyError(msg)
    folder = str(Path.cwd())
    # It stays there: a policy may import its neighbours as late as when it first chooses.
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    return EntryPoint(name=spec, value=spec, group=GROUP)


def _by_name(name: str) -> EntryPoint:
    entries = _scan()
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        msg = f"not known{hint(name, entries)}; allowed: {known}, or package.module:Class"
        raise PolicyError(msg)
    return _only(name, entries[name])


def _scan() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def _only(name: str, entries: list[EntryPoint]) -> EntryPoint:
    if len(entries) > 1:
        owners = " and ".join(_distribution(entry) for entry in entries)
        msg = f"{name!r} is offered by {owners}; uninstall one, or name it as package.module:Class"
        raise PolicyError(msg)
    return entries[0]


def _imported(entry: EntryPoint) -> type[Policy]:
    try:
        target: type[Policy] = entry.load()
    except ModuleNotFoundError as error:
        msg = f"cannot load {entry.value}: {error}; searched: {', '.join(sys.path)}"
        raise PolicyError(msg) from error
    except Exception as error:
        msg = f"cannot load {entry.value}: {describe(error)}"
        raise PolicyError(msg) from error
    return target


def _info(entry: EntryPoint) -> PolicyInfo:
    owner = _distribution(entry)
    try:
        target = _imported(entry)
        options = check_class(target)
    except PolicyError as error:
        return PolicyInfo(entry.name, owner, entry.value, error=str(error))
    about = "" if target.__doc__ is None else inspect.cleandoc(target.__doc__)
    about = about.partition("\nArgs:\n")[0].rstrip()
    summary = about.partition("\n")[0]
    return PolicyInfo(entry.name, owner, entry.value, summary, options, about=about)


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed distribution"
