"""One report for all scenarios of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.report import Report

FOLDER = Path(__file__).parents[2] / "out" / "chaos"


@pytest.fixture(scope="session")
def report():
    made = Report()
    yield made
    if made.scenarios:
        made.write(FOLDER)
