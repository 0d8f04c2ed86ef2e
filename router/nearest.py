"""The hint that follows a misspelt word."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'serve'?)"``, or nothing when no allowed word is near."""
    near = get_close_matches(word.lower(), list(allowed), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
