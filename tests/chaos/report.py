"""The report of a chaos run: figures beside what they should be."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SCALE = float(os.environ.get("CHAOS_SCALE", "1"))
"""Factor on the lengths of the scenarios."""


@dataclass(slots=True)
class Report:
    """Filled by the scenarios, written after the last of them."""

    scenarios: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, scenario: str, aims: str, figures: dict[str, Any]) -> None:
        """Keep what a scenario measured.

        Args:
            scenario: Its title.
            aims: What the figures should be.
            figures: What they are.
        """
        self.scenarios[scenario] = {"aims": aims, "figures": figures}

    def write(self, folder: Path) -> None:
        """Write ``report.md`` and ``report.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "scale": SCALE,
            "load_average": round(os.getloadavg()[0], 1),
        }
        data = {"machine": machine, "scenarios": self.scenarios}
        (folder / "report.json").write_text(json.dumps(data, indent=2) + "\n")
        (folder / "report.md").write_text(self._text(machine))

    def _text(self, machine: dict[str, Any]) -> str:
        lines = ["# Chaos", "", ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
        for title, told in self.scenarios.items():
            lines += [f"## {title}", "", f"Aims: {told['aims']}", "", "| figure | value |"]
            lines += ["|---|---|"]
            lines += [f"| {key} | {value} |" for key, value in told["figures"].items()]
            lines.append("")
        return "\n".join(lines)
