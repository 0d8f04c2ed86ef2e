"""Why the winner of a decision won, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from router.admin.explained import ToldDecision, ToldEstimate

_REASONS: Final = {
    "probe": "It had been out of service, and this request was to show whether it is well again.",
    "fallback": "The policy failed, so the replica with the fewest requests was taken.",
}
"""Reasons that are the router's own."""

_PARTS: Final = (
    ("queue_s", "queue", "shorter", "longer"),
    ("kv_wait_s", "wait for KV", "shorter", "longer"),
    ("prefill_s", "prefill", "shorter", "longer"),
    ("decode_s", "decode", "shorter", "longer"),
)

LEAST_S: Final = 0.0005
"""Differences below this are not worth a word."""

LEAST_HARM: Final = 0.0005


def verdict(decision: ToldDecision, policy: str) -> str:
    """Say why a replica was chosen, in a sentence or two.

    Args:
        decision: What is to be explained.
        policy: Who decided.
    """
    own = _REASONS.get(decision.reason)
    if own is not None:
        return own
    estimates = decision.estimates
    winner = next((e for e in estimates if e.replica == decision.chosen), None)
    if winner is None:
        return f"{policy} chose it for the reason {decision.reason!r}; it gave no estimates."
    others = [e for e in estimates if e is not winner]
    if not others:
        only = "It was the only candidate."
        return only if decision.candidates == 1 else f"{policy} estimated no other candidate."
    other = min(others, key=lambda e: e.cost)
    if winner.cost > other.cost:
        return f"{policy} chose it although {other.replica} costs less: {decision.reason}."
    if winner.cost == other.cost:
        return f"It costs no more than {other.replica}, and {policy} took it first."
    start = f"It costs {winner.cost:.3f}, the next best, {other.replica}, {other.cost:.3f}"
    differences = _differences(winner, other)
    return f"{start}: {', '.join(differences)}." if differences else f"{start}."


def duration(seconds: float | None) -> str:
    """A span of time as people read it; ``-`` for none."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s"


def _differences(winner: ToldEstimate, other: ToldEstimate) -> list[str]:
    """What tells two candidates apart, what speaks for the winner first, the largest first."""
    found: list[tuple[float, str]] = []
    for field, name, less, more in _PARTS:
        gain_s: float = getattr(other, field) - getattr(winner, field)
        if abs(gain_s) >= LEAST_S:
            word = less if gain_s > 0 else more
            found.append((gain_s, f"its {name} is {duration(abs(gain_s))} {word}"))
    words = [text for _, text in sorted(found, key=lambda pair: -pair[0])]
    harm = other.harm - winner.harm
    if abs(harm) >= LEAST_HARM:
        word = "fewer" if harm > 0 else "more"
        text = f"{abs(harm):.3f} {word} objectives are expected to be missed"
        words.insert(0 if harm > 0 else len(words), text)
    return words
