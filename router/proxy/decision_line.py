"""The decision behind an answer, as a field of the answer's head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.core.decisions import Decisions
    from router.core.request import Attempt

DECISION_FIELD: Final = b"x-pointsman-decision"

_NOT_PLAIN = re.compile(r"[^ !#-:<-~]")
"""What may not stand in a value as it is; a policy's reason may hold anything."""


def decision_line(decisions: Decisions | None, attempt: Attempt) -> bytes:
    """Tell where an attempt went and why.

    Args:
        decisions: Where decisions are kept; None: nowhere.
        attempt: Which one.

    Returns:
        A field line that begins with CRLF; times in seconds. Empty when the decision is kept no
        more.
    """
    decision = decisions.get(attempt.decision) if decisions is not None else None
    if decision is None:
        return b""
    parts = [f"replica={decision.chosen}", f"reason={_NOT_PLAIN.sub('_', decision.reason)}"]
    if decision.ttft_s is not None:
        parts.append(f"ttft={decision.ttft_s:.3f}")
    parts += [f"candidates={decision.candidates}", f"held={decision.held_s:.3f}"]
    return b"\r\n%b: %b" % (DECISION_FIELD, "; ".join(parts).encode())
