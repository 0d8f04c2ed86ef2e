"""Pictures of simulations: what may be asked for, and whether it can be drawn."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadgen.simulate.task import Finished

PICTURES = (".png", ".svg")
"""Kinds of pictures, as files end in them."""


class DrawingError(Exception):
    """There is nothing to draw with; the text says how to get it."""


def check_drawing() -> None:
    """See that matplotlib is there; it is large, and nothing else needs it.

    Raises:
        DrawingError: It is not.
    """
    if find_spec("matplotlib") is None:
        raise DrawingError("matplotlib is not installed: pip install 'pointsman[plot]'")


def plot_files(path: Path, workloads: Sequence[str]) -> list[Path]:
    """A file for each workload: ``path`` itself if there is but one, else named after them too."""
    if len(workloads) == 1:
        return [path]
    names = [re.sub(r"[^\w.]+", "-", workload.rpartition("/")[2]) for workload in workloads]
    return [
        path.with_stem(f"{path.stem}-{name}" if names.count(name) == 1 else f"{path.stem}-{number}")
        for number, name in enumerate(names)
    ]


def plot(path: Path, finished: Sequence[Finished], slo: str) -> None:
    """Draw simulations of one workload on one fleet; overwrites ``path``.

    Raises:
        OSError: It cannot be written.
    """
    from loadgen.simulate.drawing import draw  # noqa: PLC0415 - matplotlib may not be there

    draw(path, finished, slo)
