"""The full reports of a trial, in a folder: ``TRACE/POLICY.json``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadgen.replay.report import dump_report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from loadgen.trace.request import Trace
    from loadgen.trial.run import Outcome

_UNSAFE = re.compile(r"[^\w.]+")


class ReportFolder:
    """Where the reports of a trial go.

    Args:
        folder: The folder; it is made when the first report comes.
        traces: The traces of the trial; of equal names the later ones get a number.
    """

    def __init__(self, folder: Path, traces: Iterable[Trace]) -> None:
        self._folders: list[tuple[Trace, Path]] = []
        taken: set[str] = set()
        for trace in traces:
            name, number = _safe(trace.name), 1
            while name in taken:
                number += 1
                name = f"{_safe(trace.name)}-{number}"
            taken.add(name)
            self._folders.append((trace, folder / name))

    def write(self, outcome: Outcome) -> Path:
        """Write the report of a run and return its file.

        Raises:
            OSError: It cannot be written.
        """
        folder = next(folder for trace, folder in self._folders if trace is outcome.trace)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{_safe(outcome.case.name)}.json"
        file.write_bytes(dump_report(outcome.report))
        return file


def _safe(name: str) -> str:
    """``name`` as a name of a file."""
    return _UNSAFE.sub("-", name).strip("-.") or "trace"
