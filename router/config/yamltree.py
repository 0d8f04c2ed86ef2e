"""YAML text as plain data, with the line of every value, and with the environment expanded.

PyYAML's own constructor keeps the last of two equal keys and forgets where things stood. This one
builds lists, dicts and scalars from PyYAML's node tree and remembers both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from router.config.environment import UnsetVariableError, expand
from router.config.structs import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_VALUES = 100_000
"""Values in one file: 5,000 replicas need 20,000. Aliases can make millions out of a few lines."""

_Loader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}
_STR_TAG = "tag:yaml.org,2002:str"


@dataclass(slots=True)
class Expanded:
    """A value that came from the environment.

    The environment holds strings only. Where a number is wanted, the string is read as YAML would
    read it, so that ``${LIMIT}`` does for numbers too.
    """

    written: str
    """As it stands in the file; shown in errors in place of the value, which may be a secret."""

    holder: dict[str, object] | list[object]
    """The dict or list that holds the value."""

    key: str | int
    other: object
    """The reading, as string or as number, that was not taken."""


@dataclass(slots=True)
class Tree:
    """A file, read."""

    value: object
    lines: dict[str, int] = field(default_factory=dict)
    """Line of each key path; ``$`` is the whole."""

    expanded: dict[str, Expanded] = field(default_factory=dict)
    """By key path."""

    def reread(self, path: str) -> bool:
        """Take the other reading of an expanded value; False when there is none left to take."""
        expanded = self.expanded.get(path)
        if expanded is None or expanded.other is None:
            return False
        if isinstance(expanded.holder, list):
            expanded.holder[int(expanded.key)] = expanded.other
        else:
            expanded.holder[str(expanded.key)] = expanded.other
        expanded.other = None
        return True


def read_yaml(text: str, where: str, environ: Mapping[str, str]) -> Tree:
    """Read YAML text; an empty one is an empty mapping.

    Args:
        text: The text.
        where: What to call it in errors.
        environ: The variables for ``${NAME}``.

    Raises:
        ConfigError: It is no YAML, a key stands there twice, or a variable is not set.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return _Builder(loader, where, environ).build(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(
            f"this is not YAML: {error.problem or error.context}", where=at
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"this is not YAML: {_one_line(error)}", where=where) from error
    except RecursionError as error:
        raise ConfigError("this is nested too deeply", where=where) from error


class _Builder:
    def __init__(
        self,
        loader: yaml.SafeLoader | yaml.CSafeLoader,
        where: str,
        environ: Mapping[str, str],
    ) -> None:
        self._loader = loader
        self._where = where
        self._environ = environ
        self._tree = Tree({})
        self._open: set[int] = set()
        """Nodes being built: an alias to one of these would never end."""
        self._flat: set[int] = set()
        """Mappings whose merge keys are resolved already."""
        self._values = 0

    def build(self, node: yaml.Node | None) -> Tree:
        if node is not None:
            self._tree.value = self._value(node, "$")
        return self._tree

    def _value(self, node: yaml.Node, path: str) -> object:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._error(f"there are more than {MAX_VALUES} values", node, path)
        self._tree.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise self._error("an alias stands inside of what it is an alias for", node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
                return self._list(node, path)
            if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
                return self._dict(node, path)
        finally:
            self._open.discard(id(node))
        raise self._error(f"the tag {node.tag} is not allowed", node, path)

    def _list(self, node: yaml.SequenceNode, path: str) -> list[object]:
        items: list[object] = []
        for index, child in enumerate(node.value):
            self._put(items, index, child, f"{path}[{index}]")
        return items

    def _dict(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        if id(node) not in self._flat:
            self._refuse_twins(node, path)
            self._loader.flatten_mapping(node)
            self._flat.add(id(node))
        found: dict[str, object] = {}
        for key_node, child in node.value:
            key = self._key(key_node, path)
            below = f"{path}.{key}"
            self._tree.lines[below] = key_node.start_mark.line + 1
            self._put(found, key, child, below)
        return found

    def _put(
        self,
        holder: dict[str, object] | list[object],
        key: str | int,
        node: yaml.Node,
        path: str,
    ) -> None:
        value = self._value(node, path)
        if isinstance(holder, list):
            holder.append(value)
        else:
            holder[str(key)] = value
        if isinstance(node, yaml.ScalarNode) and "$" in node.value:
            text = self._expand(node, path)
            other = self._read(node, text, path) if value == text else text
            self._tree.expanded[path] = Expanded(node.value, holder, key, other)

    def _refuse_twins(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                msg = f"the key {key!r} stands here twice, first in line {seen[key]}"
                raise self._error(msg, key_node, path)
            seen[key] = line

    def _key(self, node: yaml.Node, path: str) -> str:
        key = self._read(node, node.value, path) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            msg = f"the key {node.value!r} is no string; put it in quotes"
            raise self._error(msg[:200], node, path)
        return key

    def _scalar(self, node: yaml.ScalarNode, path: str) -> object:
        if "$" not in node.value:
            return self._read(node, node.value, path)
        text = self._expand(node, path)
        return text if node.style else self._read(node, text, path)

    def _read(self, node: yaml.ScalarNode, text: str, path: str) -> object:
        """Read a scalar, an expanded one as if it had no quotes."""
        tag = node.tag
        if text != node.value:
            resolve: Callable[..., str] = self._loader.resolve
            guessed = resolve(yaml.ScalarNode, text, (True, False))
            tag = guessed if guessed in _PLAIN_TAGS else _STR_TAG
        try:
            return self._loader.construct_object(
                yaml.ScalarNode(tag, text, node.start_mark, node.end_mark, node.style)
            )
        except ValueError as error:
            raise self._error(f"{text[:60]!r} cannot be read: {error}", node, path) from error

    def _expand(self, node: yaml.ScalarNode, path: str) -> str:
        try:
            return expand(node.value, self._environ)
        except UnsetVariableError as error:
            raise self._error(str(error), node, path) from error

    def _error(self, problem: str, node: yaml.Node, path: str) -> ConfigError:
        return ConfigError(problem, path=path, where=f"{self._where}:{node.start_mark.line + 1}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
