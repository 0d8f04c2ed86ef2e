"""Logging: one line a record, on standard error.

Prompts, answers and headers are never logged; texts that come from clients or replicas are escaped,
so that nobody can forge a line or send a terminal its codes.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

LOGGER = "pointsman"
"""Parent of all our loggers."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """Formats a record, its traceback included, as one line."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; line breaks become ``\\n``, other control characters are escaped."""
        return _UNPRINTABLE.sub(_escaped, super().format(record))


def set_up_logging(level: str, stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    Our own loggers get ``level``; those of libraries say only what is wrong.

    Args:
        level: debug, info, warning or error.
        stream: Where to; standard error when left out.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def _escaped(match: re.Match[str]) -> str:
    return repr(match[0])[1:-1]
