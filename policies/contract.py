"""The contract between pointsman and a policy class, checked when the class is loaded."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.base import Policy

_LONGEST_VALUE = 80
"""Longer values are cut in messages."""


class PolicyError(ValueError):
    """A policy cannot be had: not found, breaks the contract, or was given wrong options.

    The message is one line that names the policy, what is wrong and what is allowed.
    """


@dataclass(slots=True, frozen=True)
class Option:
    """One option of a policy: a keyword-only parameter of its ``__init__``."""

    name: str
    annotation: object
    """Its declared type."""

    default: object
    doc: str
    """From the ``Args`` section of the class's docstring; empty when it is not described there."""

    @property
    def type(self) -> str:
        """The declared type as people read it."""
        if get_origin(self.annotation) is Literal:
            return " or ".join(repr(value) for value in get_args(self.annotation))
        return inspect.formatannotation(self.annotation)


def check_class(target: object) -> tuple[Option, ...]:
    """Check that ``target`` is a policy class and return its options.

    Raises:
        PolicyError: It is not; says why, without the policy's name.
    """
    if not inspect.isclass(target):
        msg = f"{target!r} is not a class"
        raise PolicyError(msg)
    _check_choose(target)
    return _options(target)


def make(target: type[Policy], options: Mapping[str, object]) -> Policy:
    """Make the policy with ``options``, each checked strictly against its declaration.

    Raises:
        PolicyError: An option or its value is not allowed; without the policy's name.
    """
    declared = {option.name: option for option in check_class(target)}
    checked: dict[str, object] = {}
    for name, value in options.items():
        if name not in declared:
            msg = f"has no option {name!r}{hint(name, declared)}; allowed: {_listed(declared)}"
            raise PolicyError(msg)
        checked[name] = _converted(declared[name], value)
    try:
        return target(**checked)
    except Exception as error:
        msg = f"refuses its options: {describe(error)}"
        raise PolicyError(msg) from error


def hint(name: str, known: Mapping[str, object]) -> str:
    """`` (did you mean …?)`` when a known name is near, else nothing."""
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def describe(error: Exception) -> str:
    """An error on one line; a ValueError speaks for itself, others are named."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _listed(options: Mapping[str, Option]) -> str:
    return ", ".join(options) or "none"


def _check_choose(target: type) -> None:
    choose = inspect.getattr_static(target, "choose", None)
    bound = isinstance(choose, (staticmethod, classmethod))
    function = getattr(target, "choose", None)
    if not callable(function):
        msg = f"class {target.__name__} has no method `choose`"
        raise PolicyError(msg)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        msg = f"{target.__name__}.choose must be a plain method, neither async nor a generator"
        raise PolicyError(msg)
    signature = inspect.signature(function)
    try:
        signature.bind(*([None] * (3 if bound else 4)))
    except TypeError as error:
        msg = f"{target.__name__}.choose{signature} must take (self, request, replicas, rng)"
        raise PolicyError(msg) from error


def _options(target: type) -> tuple[Option, ...]:
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except Exception as error:
        msg = f"the signature of {target.__name__}.__init__ cannot be read: {describe(error)}"
        raise PolicyError(msg) from error
    docs = _documented_args(inspect.getdoc(target) or "")
    options = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # what a class without its own `__init__` takes
        where = f"parameter {parameter.name!r} of {target.__name__}.__init__"
        if parameter.kind is not parameter.KEYWORD_ONLY:
            msg = f"{where} must be keyword-only: options go by name"
            raise PolicyError(msg)
        if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
            msg = f"{where} must have an annotated type and a default"
            raise PolicyError(msg)
        doc = docs.get(parameter.name, "")
        options.append(Option(parameter.name, parameter.annotation, parameter.default, doc))
    return tuple(options)


def _converted(option: Option, value: object) -> object:
    try:
        return msgspec.convert(value, option.annotation)
    except msgspec.ValidationError as error:
        shown = repr(value)
        if len(shown) > _LONGEST_VALUE:
            shown = f"{shown[:_LONGEST_VALUE]}…"
        msg = f"option {option.name!r} is {shown}; allowed: {option.type} ({error})"
        raise PolicyError(msg) from error
    except TypeError as error:
        msg = f"option {option.name!r} has a type that cannot be checked: {describe(error)}"
        raise PolicyError(msg) from error


def _documented_args(docstring: str) -> dict[str, str]:
    """What a Google-style ``Args:`` section says of each argument."""
    _, _, section = f"\n{docstring}".partition("\nArgs:\n")
    docs: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text and not indent:
            break
        if indent == 4 and ":" in text:
            name, _, text = text.partition(":")
            docs[name] = text.strip()
        elif name and text:
            docs[name] = f"{docs[name]} {text}".strip()
    return docs
