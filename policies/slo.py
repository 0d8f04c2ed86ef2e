"""Service-level objectives: how fast an answer must be to count as goodput.

Written ``ttft=2s,tpot=60ms``. Times need a unit (``us``, ``ms`` or ``s``). The TTFT limit may grow
with the prompt: ``ttft=2s+0.25ms@4096`` allows 2 s, and 0.25 ms more for each prompt token above
4096, since no engine reads a long prompt as fast as a short one.
"""

from __future__ import annotations

import re

import msgspec

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_TIME = r"(\d+(?:\.\d+)?)(us|ms|s)"
_LIMIT = re.compile(rf"{_TIME}(?:\+{_TIME}@(\d+))?")
_HELP = "write for example ttft=2s,tpot=60ms or ttft=2s+0.25ms@4096 (units: us, ms, s)"


class SloError(ValueError):
    """An objective is not written as it should be."""


class Slo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits on one answer; None where there is none."""

    ttft_s: float | None = None
    ttft_s_per_token: float = 0.0
    """Added to ``ttft_s`` for each prompt token above ``ttft_free_tokens``."""

    ttft_free_tokens: int = 0
    tpot_s: float | None = None
    e2e_s: float | None = None

    def ttft_limit_s(self, prompt_tokens: int) -> float | None:
        """The TTFT allowed for a prompt of ``prompt_tokens``."""
        if self.ttft_s is None:
            return None
        extra_tokens = max(prompt_tokens - self.ttft_free_tokens, 0)
        return self.ttft_s + self.ttft_s_per_token * extra_tokens

    def met(self, *, prompt_tokens: int, ttft_s: float, tpot_s: float | None, e2e_s: float) -> bool:
        """Whether an answer that came whole kept every limit.

        Args:
            prompt_tokens: Length of its prompt.
            ttft_s: Its time to first token.
            tpot_s: Its time per output token; None for an answer of one token, which meets any.
            e2e_s: Its time from sending to the end.
        """
        ttft_limit_s = self.ttft_limit_s(prompt_tokens)
        return (
            (ttft_limit_s is None or ttft_s <= ttft_limit_s)
            and (self.tpot_s is None or tpot_s is None or tpot_s <= self.tpot_s)
            and (self.e2e_s is None or e2e_s <= self.e2e_s)
        )

    def __str__(self) -> str:
        parts = []
        if self.ttft_s is not None:
            extra = ""
            if self.ttft_s_per_token:
                extra = f"+{_time(self.ttft_s_per_token)}@{self.ttft_free_tokens}"
            parts.append(f"ttft={_time(self.ttft_s)}{extra}")
        if self.tpot_s is not None:
            parts.append(f"tpot={_time(self.tpot_s)}")
        if self.e2e_s is not None:
            parts.append(f"e2e={_time(self.e2e_s)}")
        return ",".join(parts)


def parse_slo(text: str) -> Slo:
    """Read an objective such as ``ttft=2s,tpot=60ms``; ``ttft``, ``tpot`` and ``e2e`` are known.

    Raises:
        SloError: It names something else or nothing, repeats itself, or lacks a unit.
    """
    limits: dict[str, float | int] = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if key not in {"ttft", "tpot", "e2e"}:
            msg = f"{key!r} is no objective (ttft, tpot, e2e); {_HELP}"
            raise SloError(msg)
        if f"{key}_s" in limits:
            msg = f"{key} is given twice"
            raise SloError(msg)
        limits |= _parse_limit(key, value)
    return msgspec.convert(limits, Slo)


def _parse_limit(key: str, value: str) -> dict[str, float | int]:
    match = _LIMIT.fullmatch(value)
    if match is None:
        msg = f"{key}={value} is no time limit; {_HELP}"
        raise SloError(msg)
    amount, unit, extra, extra_unit, free_tokens = match.groups()
    limits: dict[str, float | int] = {f"{key}_s": float(amount) * _UNITS_S[unit]}
    if not limits[f"{key}_s"]:
        msg = f"{key}={value}: nothing is that fast; the limit must be above 0"
        raise SloError(msg)
    if extra is not None:
        if key != "ttft":
            msg = f"{key}={value}: only the limit of ttft grows with the prompt"
            raise SloError(msg)
        limits["ttft_s_per_token"] = float(extra) * _UNITS_S[extra_unit]
        limits["ttft_free_tokens"] = int(free_tokens)
    return limits


def _time(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1e3:g}ms"
