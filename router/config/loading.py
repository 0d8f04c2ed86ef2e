"""Loading the configuration file.

Four steps, each in its own room: YAML to plain data (``yamltree``), with the environment expanded
(``environment``); plain data to structs (``decoding``); rules across keys (``rules``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from router.config.decoding import at_line, decode, shown
from router.config.rules import check_config
from router.config.structs import Config, ConfigError
from router.config.yamltree import Tree, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FILE_BYTES = 4 * 1024 * 1024
"""A file larger than this is no configuration; 5,000 replicas take about 300 KiB."""


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Load and check a configuration file.

    Args:
        path: The file.
        environ: The variables for ``${NAME}``; those of the process when left out.

    Raises:
        ConfigError: The file cannot be read or holds a mistake; ``str()`` is one line with file,
            line, key path, value and what is allowed.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot be read: {reason}", where=where) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes", where=where)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("this is not UTF-8", where=f"{where}:{line}") from error
    return parse_config(text, where, os.environ if environ is None else environ)


def parse_config(text: str, where: str, environ: Mapping[str, str]) -> Config:
    """Decode and check the text of a configuration file.

    Args:
        text: YAML.
        where: What to call it in errors.
        environ: The variables for ``${NAME}``.

    Raises:
        ConfigError: It holds a mistake.
    """
    tree = read_yaml(text, where, environ)
    config = decode(tree, where)
    try:
        check_config(config)
    except ConfigError as error:
        raise _located(error, tree, where) from error
    return config


def _located(error: ConfigError, tree: Tree, where: str) -> ConfigError:
    """Add the line, and where the value came from when it does not stand there."""
    path, problem = error.path or "$", error.problem
    if path in tree.expanded:
        problem = f"{problem} (from {shown(path, tree)})"
    return ConfigError(problem, path=error.path, where=at_line(path, tree, where))
