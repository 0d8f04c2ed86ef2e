"""A policy and its options, as one word of a command line: ``name+option=value+option=value``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from policies.contract import PolicyError
from policies.registry import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.base import Policy


ORACLE = "oracle"
TOLD = "least_estimated_completion"
"""The policy whose rules the oracle follows."""


@dataclass(slots=True, frozen=True)
class Contender:
    """A policy that takes part in a comparison."""

    label: str
    """As it was written; what tables call it."""

    name: str
    """What :func:`policies.registry.load` takes, or ``oracle``."""

    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_oracle(self) -> bool:
        """Whether it is to be told the truth, which only a simulation can do."""
        return self.name == ORACLE

    def load(self) -> Policy:
        """Make the policy.

        Raises:
            PolicyError: There is none of that name, or an option is not allowed.
        """
        return load(TOLD if self.is_oracle else self.name, self.options)


def parse_contender(text: str) -> Contender:
    """Read ``name+option=value+…``; values are written as in JSON, strings without quotes.

    Raises:
        PolicyError: A part is no option, or an option is given twice.
    """
    name, *parts = text.split("+")
    options: dict[str, object] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals) or option in options:
            msg = f"policy {text!r}: {part!r} is no new option=value"
            raise PolicyError(msg)
        options[option] = _value(value)
    return Contender(text, name, options)


def _value(text: str) -> object:
    try:
        value: object = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value
