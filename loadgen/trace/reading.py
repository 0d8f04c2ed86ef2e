"""Reading trace files: plain or gzip, the format found by looking at the first line."""

from __future__ import annotations

import gzip
import zlib
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from loadgen.trace import azure, mooncake, own
from loadgen.trace.errors import TraceError
from loadgen.trace.request import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import BufferedIOBase
    from pathlib import Path

    from loadgen.trace.request import TraceRequest

_GZIP_MAGIC = b"\x1f\x8b"
_FIRST_LINE_BYTES = 1 << 20


class TraceFormat(NamedTuple):
    """A format that can be read."""

    name: str
    recognises: Callable[[bytes], bool]
    parse: Callable[[Iterable[bytes], str], Iterator[TraceRequest]]


FORMATS = tuple(
    TraceFormat(module.NAME, module.recognises, module.parse) for module in (azure, mooncake, own)
)


def read_trace(path: Path, name: str | None = None) -> Trace:
    """Read the trace in ``path``; it is called ``name``, or like the file.

    Raises:
        TraceError: The file cannot be read, has no known format, a bad row, or no row at all.
    """
    source = str(path)
    try:
        with path.open("rb") as file, ExitStack() as unzipping:
            stream: BufferedIOBase = file
            if file.peek(2)[:2] == _GZIP_MAGIC:
                stream = unzipping.enter_context(gzip.GzipFile(fileobj=file))
            trace = Trace.of(name or path.name, _parse(stream, source))
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise TraceError(reason or str(error), source) from error
    except UnicodeDecodeError as error:
        raise TraceError(f"is no UTF-8 text ({error.reason})", source) from error
    if not trace.requests:
        raise TraceError("holds no requests", source)
    return trace


def _parse(stream: BufferedIOBase, source: str) -> Iterator[TraceRequest]:
    first = stream.readline(_FIRST_LINE_BYTES)
    for trace_format in FORMATS:
        if trace_format.recognises(first):
            return trace_format.parse(chain([first], stream), source)
    if not first:
        raise TraceError("is empty", source)
    names = ", ".join(trace_format.name for trace_format in FORMATS)
    raise TraceError(f"the first line is that of no known format ({names})", source, 1)
