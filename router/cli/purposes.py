"""What each command is for, read from its source.

Importing all commands to list them takes over a second; a docstring can be had without.
"""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def purpose(entry: EntryPoint) -> str | None:
    """Return the first sentence of the docstring of the function that an entry point names.

    None when it cannot be read that way: no such module, no source, or no plain function.
    """
    try:
        spec = find_spec(entry.module)  # imports the packages above it, which hold nothing
    except ImportError:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return _first_sentence(ast.get_docstring(node) or "")
    return None


def _first_sentence(text: str) -> str | None:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence, dot, _ = paragraph.partition(". ")
    return f"{sentence}{dot.strip()}" or None
