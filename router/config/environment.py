"""Environment variables in configured values: ``${NAME}``, ``${NAME:-default}``, ``$$``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}"
    r"|(?P<broken>\{))"
)


class UnsetVariableError(ValueError):
    """A reference that cannot be resolved; ``str()`` says which, in one line."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put the values of variables in their places.

    ``${NAME:-default}`` takes the default when the variable is unset or empty, as in a shell;
    ``$$`` is one dollar sign, and a dollar sign before anything else stands for itself. What a
    variable holds is not expanded again.

    Raises:
        UnsetVariableError: A variable without a default is not set, or ``${`` is not closed.
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if match["broken"]:
            msg = "a reference has the form ${NAME} or ${NAME:-default}; write $$ for a plain $"
            raise UnsetVariableError(msg)
        name, default = match["name"], match["default"]
        if default is not None:
            return environ.get(name) or default
        if name not in environ:
            msg = (
                f"the environment variable {name} is not set; ${{{name}:-default}} gives a default"
            )
            raise UnsetVariableError(msg)
        return environ[name]

    return _REFERENCE.sub(value, text)
