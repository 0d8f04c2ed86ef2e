"""Transfers of KV between replicas whose links are shared, in virtual time.

Each replica has one link, equally fast in both directions. What leaves it shares its way out
evenly, what comes shares its way in, and a transfer is as fast as the narrower of its two shares.
What one leaves unused there is not given to others: so the model is a little slow, never too fast.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf


@dataclass(slots=True, eq=False)
class Flow:
    """One transfer under way."""

    source: object
    target: object
    left_bytes: float
    latency_s: float
    """Of this, so much is still to pass before the first byte comes."""
    driver: object = field(default=None, repr=False)
    """For whoever began it."""
    bytes_per_s: float = 0.0


class Links:
    """The links of a fleet.

    Calls must come in the order of their ``now``.

    Args:
        bytes_per_s: How fast each link is.
        latency_s: Before the first byte of each transfer comes: what two sides need to agree.

    Raises:
        ValueError: A link that nothing passes.
    """

    def __init__(self, bytes_per_s: float, latency_s: float) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"a link is faster than {bytes_per_s} bytes per second")
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self.now_s = 0.0
        self._flows: dict[Flow, None] = {}
        self._over: list[Flow] = []

    def __len__(self) -> int:
        """Transfers under way."""
        return len(self._flows)

    def begin(
        self, source: object, target: object, size_bytes: float, now: float, driver: object = None
    ) -> Flow:
        """Begin a transfer of ``size_bytes`` from one replica to another."""
        self._advance(now)
        flow = Flow(source, target, size_bytes, self.latency_s, driver)
        self._flows[flow] = None
        self._share()
        return flow

    def cancel(self, flow: Flow, now: float) -> None:
        """End a transfer before its time; one that is over is left alone."""
        self._advance(now)
        if flow in self._flows:
            del self._flows[flow]
            self._share()
        elif flow in self._over:
            self._over.remove(flow)

    def next_end_s(self) -> float | None:
        """When the next transfer will be over, if none begins or is cancelled before."""
        if self._over:
            return self.now_s
        if not self._flows:
            return None
        return self.now_s + min(map(_needs_s, self._flows))

    def advance(self, until_s: float) -> list[Flow]:
        """Let time pass; returns the transfers that are over since the last call, in order."""
        self._advance(until_s)
        over, self._over = self._over, []
        return over

    def _advance(self, until_s: float) -> None:
        while self._flows:
            step_s = min(map(_needs_s, self._flows))
            if self.now_s + step_s > until_s:
                break
            self._pass(step_s)
            ended = [flow for flow in self._flows if _needs_s(flow) <= 1e-12]
            for flow in ended:
                del self._flows[flow]
            self._over += ended
            self._share()
        if until_s > self.now_s:
            self._pass(until_s - self.now_s)
            self.now_s = until_s

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        for flow in self._flows:
            waited_s = min(flow.latency_s, seconds)
            flow.latency_s -= waited_s
            flow.left_bytes = max(flow.left_bytes - (seconds - waited_s) * flow.bytes_per_s, 0.0)

    def _share(self) -> None:
        out, come = Counter[object](), Counter[object]()
        for flow in self._flows:
            out[flow.source] += 1
            come[flow.target] += 1
        for flow in self._flows:
            flow.bytes_per_s = self.bytes_per_s / max(out[flow.source], come[flow.target])


def _needs_s(flow: Flow) -> float:
    return flow.latency_s + (flow.left_bytes / flow.bytes_per_s if flow.bytes_per_s else inf)
