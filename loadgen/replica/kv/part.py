"""What part of a request a replica has been sent."""

from __future__ import annotations

from typing import Final, NamedTuple

from loadgen.engine.sequence import Leg


class Part(NamedTuple):
    """What part of a request a replica has been sent."""

    leg: Leg
    key: str = ""
    """Under which the prompt's KV is kept."""
    source: str = ""
    """URL of who keeps it."""
    engine_id: str = ""
    """What that replica must be called, for else it is another one by now."""
    waits: bool = False
    """Of a prefill leg: whether it is answered only when its KV was fetched."""


WHOLE: Final = Part(Leg.WHOLE)
