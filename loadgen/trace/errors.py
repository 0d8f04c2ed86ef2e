"""What is wrong with a trace, and where."""

from __future__ import annotations


class TraceError(ValueError):
    """A trace cannot be read or made; its text is one line for people.

    Args:
        message: What is wrong and what is allowed.
        source: The file or name asked for.
        line: The line of the file, from 1.
    """

    def __init__(self, message: str, source: str, line: int | None = None) -> None:
        self.message = message
        self.source = source
        self.line = line
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {message}")
