"""A scenario file: unequal replicas, and faults at given times.

::

    replicas:                 # together as many as there are replicas; left out: all equal
      - {count: 4}
      - {count: 4, speed: 0.5, profile: 8b-a100}   # or with role: prefill, role: decode
    faults:                   # seconds of the simulation, whatever the rate
      - {do: die, replica: 2, at_s: 60}
      - {do: return, replica: 2, at_s: 120}
      - {do: slow, replica: 5, at_s: 30, factor: 3}
      - {do: slow, replica: 5, at_s: 90, factor: 1}
      - {do: hang, replica: 1, at_s: 40}             # or with health: true
      - {do: resume, replica: 1, at_s: 50}
      - {do: metrics, replica: 4, at_s: 20, how: frozen}   # or error; ok makes them whole

A replica that dies breaks all its connections and refuses new ones; one that returns is cold. Steps
of a slow one take ``factor`` times as long as its speed says. One that hangs takes requests and
answers nothing, its streams stand still; with ``health`` it looks well all the same. Replicas are
counted from 0. The words are those of a simulated replica's ``/faults``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec

from router.config.decoding import at_line
from router.config.structs import ConfigError
from router.config.yamltree import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_REPLICAS = 1024

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_REPLICAS)]
Factor: TypeAlias = Annotated[float, msgspec.Meta(ge=0.001, le=1000)]
Place: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=MAX_REPLICAS)]
Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Tokens: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**40)]


class Group(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Replicas that are alike."""

    count: Count = 1
    profile: str | None = None
    """Name or file of their profile, else the one of the command line."""

    speed: Factor = 1.0
    """Factor on the profile's speed."""

    max_batched_tokens: Tokens | None = None
    """Token budget of a step, else the one of the command line."""

    kv_tokens: Tokens | None = None
    """Tokens in the KV cache, else the profile's."""

    role: Literal["both", "prefill", "decode"] = "both"
    """What they are there for, in a fleet that splits requests."""


class Die(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="do", tag="die"):
    """A replica's process ends; what it had in its KV cache is lost."""

    replica: Place
    at_s: Time


class Return(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="do", tag="return"):
    """A replica that died serves again, with nothing in its cache."""

    replica: Place
    at_s: Time


class Slow(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="do", tag="slow"):
    """A replica's steps take ``factor`` times as long; 1 makes it whole."""

    replica: Place
    at_s: Time
    factor: Factor


class Hang(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="do", tag="hang"):
    """A replica takes requests but computes and answers nothing."""

    replica: Place
    at_s: Time
    health: bool = False
    """Whether it answers looks at its health and its metrics all the same."""


class Resume(msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="do", tag="resume"):
    """A replica that hung goes on where it stood."""

    replica: Place
    at_s: Time


class Metrics(
    msgspec.Struct, forbid_unknown_fields=True, frozen=True, tag_field="do", tag="metrics"
):
    """A replica's metrics page fails, or shows what it showed before, for ever."""

    replica: Place
    at_s: Time
    how: Literal["ok", "error", "frozen"]


Fault: TypeAlias = Die | Return | Slow | Hang | Resume | Metrics


ALIVE, DEAD, HUNG = "alive", "dead", "hung"

_CHANGES: Mapping[type, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        Die: ((ALIVE, HUNG), DEAD),
        Return: ((DEAD,), ALIVE),
        Hang: ((ALIVE,), HUNG),
        Resume: ((HUNG,), ALIVE),
    }
)
"""In which states a fault can befall a replica, and what state it leaves it in."""


class Scenario(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file."""

    replicas: list[Group] = []
    faults: list[Fault] = []

    @property
    def fleet_size(self) -> int | None:
        """How many replicas it describes; None when it leaves that open."""
        return sum(group.count for group in self.replicas) or None


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ConfigError: It cannot be read, or holds a mistake; the text says where.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot be read: {reason}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("this is not UTF-8", where=str(path)) from error
    tree = read_yaml(text, str(path), {})
    try:
        return msgspec.convert(tree.value, Scenario)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `")
        key_path = place.removesuffix("`") or "$"
        where = at_line(key_path, tree, str(path))
        raise ConfigError(problem, path=key_path, where=where) from error


def check_faults(scenario: Scenario, replicas: int, where: str) -> None:
    """Refuse faults of replicas that are not there, or that cannot befall them at that time.

    Raises:
        ConfigError: There is such a fault.
    """
    states: dict[int, str] = {}
    for number, fault in sorted(enumerate(scenario.faults), key=lambda each: each[1].at_s):
        path = f"$.faults[{number}]"
        if fault.replica >= replicas:
            problem = f"there is no replica {fault.replica}; allowed: 0 to {replicas - 1}"
            raise ConfigError(problem, path=f"{path}.replica", where=where)
        state = states.get(fault.replica, ALIVE)
        needed, then = _CHANGES.get(type(fault), ((ALIVE, DEAD, HUNG), state))
        if state not in needed:
            problem = (
                f"replica {fault.replica} is {state} at {fault.at_s:g} s, not {' or '.join(needed)}"
            )
            raise ConfigError(problem, path=path, where=where)
        states[fault.replica] = then
