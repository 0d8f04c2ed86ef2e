"""What can go wrong with a trial."""

from __future__ import annotations


class TrialError(Exception):
    """A trial cannot go on; its text is one line for people."""
