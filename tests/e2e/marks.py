"""The marks that every end-to-end module carries."""

from __future__ import annotations

import pytest


def e2e(group: str) -> list[pytest.MarkDecorator]:
    """One event loop and one worker for the whole module, so that it starts one router only."""
    return [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group(f"e2e-{group}")]
