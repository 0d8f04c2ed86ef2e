"""The default configuration as a commented file, written from the structs themselves.

The comments are the docstrings under the fields of the structs. Python drops these at run time, so
they are read from the source.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING

import msgspec
from msgspec import NODEFAULT
from msgspec.inspect import Field, ListType, StructType, type_info

from router.config import resilience, splitting, structs
from router.config.structs import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 92

_HEAD = """\
# The configuration of pointsman, with every key at its default. To use it:
#
#   pointsman config > config.yaml
#   pointsman config --check config.yaml
#   pointsman serve --config config.yaml
#
# A value may name environment variables: ${NAME}, or ${NAME:-default}; $$ is a plain $.
# Times are in seconds, sizes in bytes. A key that is left out has its default.
"""


def default_file() -> str:
    """Return the whole file; it loads to ``Config()``."""
    top = type_info(Config)
    if not isinstance(top, StructType):
        msg = "Config is a struct"
        raise TypeError(msg)
    docs = field_docs()
    lines = [line for field in top.fields for line in ("", *_field(field, "Config", docs))]
    return _HEAD + "\n".join(lines) + "\n"


def field_docs() -> dict[str, dict[str, str]]:
    """Return the docstring of each field, by struct and field; a field without one is missing."""
    trees = [ast.parse(inspect.getsource(module)) for module in (structs, resilience, splitting)]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_docs(node)) for node in classes}


def _docs(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield field.target.id, inspect.cleandoc(str(below.value.value))


def _field(field: Field, struct: str, docs: dict[str, dict[str, str]]) -> list[str]:
    lines = _comment(docs[struct][field.encode_name])
    if isinstance(field.type, StructType):
        below = [
            line
            for child in field.type.fields
            for line in _field(child, field.type.cls.__name__, docs)
        ]
        return [*lines, f"{field.encode_name}:", *_indented(below)]
    lines += _value(field.encode_name, _default(field))
    if isinstance(field.type, ListType) and isinstance(field.type.item_type, StructType):
        lines += _example(field.type.item_type, docs)
    return lines


def _default(field: Field) -> object:
    return field.default_factory() if field.default_factory is not NODEFAULT else field.default


def _value(name: str, value: object) -> list[str]:
    if isinstance(value, list) and value:
        return [f"{name}:", *(f"  - {_scalar(item)}" for item in value)]
    if isinstance(value, dict) and value:
        return [f"{name}:", *(f"  {key}: {_scalar(entry)}" for key, entry in value.items())]
    return [f"{name}: {_scalar(value)}"]


def _scalar(value: object) -> str:
    return msgspec.json.encode(value).decode()  # JSON is YAML


def _example(entry: StructType, docs: dict[str, dict[str, str]]) -> list[str]:
    """Show an entry of a list of structs that is empty by default, as a comment."""
    lines: list[str] = []
    for index, field in enumerate(entry.fields):
        default = "http://127.0.0.1:8000" if field.required else _default(field)
        [assignment] = _value(field.encode_name, default)
        mark = "- " if index == 0 else "  "
        text = _comment(docs[entry.cls.__name__][field.encode_name], WIDTH - 6)
        lines += [f"  {line}" for line in text]
        lines.append(f"{mark}{assignment}")
    head = "# One entry, to be put in the place of []:"
    return [head, *(f"#   {line}" for line in lines)]


def _comment(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="# ", subsequent_indent="# ")


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
