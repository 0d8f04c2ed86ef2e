"""What the end of an attempt says about the replica: one table for health and retries alike."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What an attempt says about its replica."""

    SUCCESS = "success"
    """The replica did its work, whatever the client thinks of the answer."""
    BACK_PRESSURE = "back_pressure"
    """It is busy, not broken: neither good nor bad."""
    FAILURE = "failure"
    """It did not do its work."""


_OF_STATUS = {
    429: Outcome.BACK_PRESSURE,
    503: Outcome.BACK_PRESSURE,
    # The client asked for what this server does not do at all (also HAProxy's `observe layer7`).
    501: Outcome.SUCCESS,
    505: Outcome.SUCCESS,
}


def outcome_of_status(status: int) -> Outcome:
    """What a final status says about the replica that gave it.

    A 4xx is the client's mistake, so over-long prompts take no replica out of service; 429 and 503
    are what a full engine says. Every other 5xx is a failure, and so is an attempt that gave no
    status at all: refused, reset, garbled, timed out or stalled.
    """
    known = _OF_STATUS.get(status)
    if known is not None:
        return known
    return Outcome.FAILURE if status >= 500 else Outcome.SUCCESS
