"""Finding a trace by what the user wrote: a shipped name, a generator, or a file."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from loadgen.trace import bimodal
from loadgen.trace.errors import TraceError
from loadgen.trace.reading import read_trace

if TYPE_CHECKING:
    from loadgen.trace.request import Trace

SHIPPED = MappingProxyType(
    {
        "azure-code": "azure_code_2023.csv",
        "azure-conv": "azure_conv_2023.csv",
        "mooncake-conversation": "mooncake_conversation.jsonl",
        "servegen-r1": "servegen_deepseek_r1.jsonl",
        "toolagent": "toolagent.jsonl",
    }
)
"""Cuts of traces that are part of the package; see ``loadgen/traces/README.md``."""


def open_trace(spec: str, *, seed: int = 0) -> Trace:
    """The trace that ``spec`` names.

    Args:
        spec: A name in :data:`SHIPPED`, ``bimodal`` with or without parameters
            (``bimodal:rate=4,n=600``), or the path of a file. A file that is called like one of
            these needs its folder before it: ``./bimodal``.
        seed: Added to the seed of a trace that is drawn; others do not depend on it.

    Raises:
        TraceError: There is no such trace, or it cannot be read.
    """
    kind, _, parameters = spec.partition(":")
    if kind == bimodal.NAME:
        drawn = bimodal.parse_parameters(parameters)
        return bimodal.make_trace(msgspec.structs.replace(drawn, seed=drawn.seed + seed), spec)
    if spec in SHIPPED:
        with as_file(files("loadgen") / "traces" / SHIPPED[spec]) as path:
            return read_trace(path, spec)
    path = Path(spec)
    if not path.exists():
        names = ", ".join((*SHIPPED, f"{bimodal.NAME}[:key=value,…]"))
        raise TraceError(f"no such file, and no trace has that name ({names})", spec)
    return read_trace(path)
