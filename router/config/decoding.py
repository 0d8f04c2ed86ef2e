"""From plain data to :class:`router.config.structs.Config`, with errors that a person can act on.

msgspec decodes strictly and names the path of the first mistake. Its words are for programmers
(``Expected `array`, got `str```), so they are translated here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import inspect

from router.config.structs import Config, ConfigError
from router.nearest import did_you_mean

if TYPE_CHECKING:
    from router.config.yamltree import Tree

_COMPLAINT = re.compile(r"(?P<problem>.*?)(?: - at (?:`key` in )?`(?P<path>\$.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_EXPECTED = re.compile(r"Expected `(?P<kind>[^`]*)`(?P<bound>.*?)(?:, got `(?P<got>[^`]*)`)?")
_STEP = re.compile(r"\.(?P<key>\w+)|\[(?P<index>\d+|\.\.\.)\]")

_KINDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
    "null": "null",
}
_KIND_OF = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    list: "array",
    dict: "object",
}


def decode(tree: Tree, where: str) -> Config:
    """Decode a file that was read.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of the wrong kind or out of bounds.
    """
    while True:
        try:
            return msgspec.convert(tree.value, Config)
        except msgspec.ValidationError as error:
            problem, path = _parse(str(error), tree.value)
            if not tree.reread(path):
                raise _translate(problem, path, tree, where) from error


def at_line(path: str, tree: Tree, where: str) -> str:
    """Return ``file:line`` of the nearest key on the way to ``path`` that the file holds."""
    while path and path not in tree.lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return f"{where}:{tree.lines[path]}" if path else where


def shown(path: str, tree: Tree) -> str:
    """Return the value at ``path`` as errors show it: as written, and not too much of it."""
    expanded = tree.expanded.get(path)
    value = expanded.written if expanded else _lookup(tree.value, path)
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse(complaint: str, value: object) -> tuple[str, str]:
    match = _COMPLAINT.fullmatch(complaint)
    if match is None:
        return complaint, "$"
    problem, path = match["problem"], match["path"] or "$"
    if path.endswith("[...]"):
        path = _culprit(path.removesuffix("[...]"), problem, value)
    return problem, path


def _culprit(path: str, problem: str, value: object) -> str:
    """Find which entry of a mapping is meant: msgspec writes ``[...]`` for all of them."""
    entries = _lookup(value, path)
    expected = _EXPECTED.fullmatch(problem)
    if expected is not None and isinstance(entries, dict):
        for key, entry in entries.items():
            if _KIND_OF.get(type(entry), "null") == expected["got"]:
                return f"{path}.{key}"
    return path


def _translate(problem: str, path: str, tree: Tree, where: str) -> ConfigError:
    if unknown := _UNKNOWN.fullmatch(problem):
        key, allowed = unknown["key"], _keys(path)
        path = f"{path}.{key}"
        text = f"unknown key{did_you_mean(key, allowed)}; allowed here: {', '.join(allowed)}"
    elif missing := _MISSING.fullmatch(problem):
        text = f"the key {missing['key']!r} is missing"
    elif expected := _EXPECTED.fullmatch(problem):
        kind = " or ".join(_KINDS.get(k, k) for k in expected["kind"].split(" | "))
        bound = expected["bound"].removesuffix(".0")
        text = f"{shown(path, tree)} is not allowed; expected {kind}{bound}"
        if expected["kind"] == "object" and (keys := _keys(path)):
            text += f", with the keys: {', '.join(keys)}"
    else:
        text = problem
    return ConfigError(text, path=path, where=at_line(path, tree, where))


def _keys(path: str) -> list[str]:
    kind: inspect.Type = inspect.type_info(Config)
    for step in _STEP.finditer(path):
        if isinstance(kind, inspect.StructType):
            kind = next(f.type for f in kind.fields if f.encode_name == step["key"])
        elif isinstance(kind, inspect.ListType):
            kind = kind.item_type
    if not isinstance(kind, inspect.StructType):
        return []
    return [field.encode_name for field in kind.fields]


def _lookup(value: object, path: str) -> object:
    """Follow a path; keys of mappings may hold dots, so the longest that fits is taken."""
    rest = path.removeprefix("$")
    while rest:
        if isinstance(value, list):
            index, _, rest = rest.removeprefix("[").partition("]")
            value = value[int(index)]
            continue
        if not isinstance(value, dict):
            return value
        steps = [k for k in value if re.match(rf"\.{re.escape(k)}(?=[.\[]|$)", rest)]
        if not steps:
            return value
        key = max(steps, key=len)
        value, rest = value[key], rest[len(key) + 1 :]
    return value
