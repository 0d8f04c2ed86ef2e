"""What can be made to go wrong, while the replica runs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

Cut = Literal["rst", "fin", "torn", "stall"]
MetricsFault = Literal["ok", "error", "garbage", "frozen", "huge", "slow"]
HealthFault = Literal["ok", "error", "slow"]


class HangFault(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Connections are accepted and requests read, but nothing is answered; streams stand still."""

    health: bool = False
    """Whether health, metrics and models are answered all the same, as of a wedged engine."""


class ErrorFault(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A share of the inference requests gets an error."""

    share: Share = 1.0
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 500
    retry_after_s: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Sent as ``Retry-After``."""


class CutFault(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A share of the streams breaks."""

    after_tokens: Annotated[int, msgspec.Meta(ge=0)]
    how: Cut = "rst"
    """rst: reset. fin: closed between two events. torn: closed within one. stall: silent."""

    share: Share = 1.0


class Change(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of ``POST /faults``: what is named is set, what is null is made whole."""

    crash: bool | msgspec.UnsetType = msgspec.UNSET
    hang: HangFault | bool | msgspec.UnsetType | None = msgspec.UNSET
    slow: Annotated[float, msgspec.Meta(gt=0)] | msgspec.UnsetType | None = msgspec.UNSET
    errors: ErrorFault | msgspec.UnsetType | None = msgspec.UNSET
    cut: CutFault | msgspec.UnsetType | None = msgspec.UNSET
    metrics: MetricsFault | msgspec.UnsetType | None = msgspec.UNSET
    health: HealthFault | msgspec.UnsetType | None = msgspec.UNSET


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self.hang: HangFault | None = None
        self.slow = 1.0
        """Factor on the time of every engine step."""
        self.errors: ErrorFault | None = None
        self.cut: CutFault | None = None
        self.metrics: MetricsFault = "ok"
        self.health: HealthFault = "ok"
        self._answering = asyncio.Event()
        self._answering.set()

    def apply(self, change: Change) -> None:
        """Set what ``change`` names, but for the crash, which is the caller's."""
        if change.hang is not msgspec.UNSET:
            self._set_hang(change.hang)
        if change.slow is not msgspec.UNSET:
            self.slow = change.slow or 1.0
        if change.errors is not msgspec.UNSET:
            self.errors = change.errors
        if change.cut is not msgspec.UNSET:
            self.cut = change.cut
        if change.metrics is not msgspec.UNSET:
            self.metrics = change.metrics or "ok"
        if change.health is not msgspec.UNSET:
            self.health = change.health or "ok"

    async def answering(self) -> None:
        """Return when nothing hangs."""
        await self._answering.wait()

    def state(self) -> dict[str, object]:
        """As ``GET /faults`` shows it."""
        return {
            "hang": self.hang,
            "slow": self.slow,
            "errors": self.errors,
            "cut": self.cut,
            "metrics": self.metrics,
            "health": self.health,
        }

    def _set_hang(self, hang: HangFault | bool | None) -> None:
        if isinstance(hang, bool):
            hang = HangFault() if hang else None
        self.hang = hang
        if hang is None:
            self._answering.set()
        else:
            self._answering.clear()
