"""What a router sees of an engine that its operator could set better.

An engine computes prompts in steps of so many tokens, its budget (vLLM: ``max_num_batched_tokens``,
SGLang: ``chunked_prefill_size``), and every stream beside them gets one token a step. Where streams
miss their objective though steps without a prompt leave it far behind, the steps with one are too
long: no router can mend that for good by placing requests, a smaller budget can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.speed import Speed

if TYPE_CHECKING:
    from policies.forecast import Forecast

UNLEARNED: Final = Speed().steps_per_token

LATE_FROM: Final = 0.03
"""Share of streams that must miss their objective."""

EASY_BELOW: Final = 0.7
"""Steps without a prompt take less than this share of the objective; else there are too many
streams."""

LEAST_TOKENS, MOST_TOKENS = 256, 8192
"""No smaller budget is advised, since the steps' own cost would slow prompts down too much."""

SURELY: Final = 1.5
"""What was learned of a budget may be off by so much."""


def better_budget_tokens(forecast: Forecast, tpot_s: float) -> int | None:
    """A token budget whose steps a replica's streams could bear, where they cannot bear its own.

    Args:
        forecast: Of the replica.
        tpot_s: The objective of most of its streams, in seconds a token.

    Returns:
        A power of two; None if the budget is not what they miss their objective for, or nothing
        was learned of it.
    """
    speed = forecast.speed
    if forecast.late_share < LATE_FROM or forecast.step_s > EASY_BELOW * tpot_s:
        return None
    if not 0.0 < speed.steps_per_token != UNLEARNED:
        return None
    better_tokens = MOST_TOKENS
    while better_tokens > LEAST_TOKENS and speed.prefill_time_s(better_tokens) > tpot_s:
        better_tokens //= 2
    return better_tokens if 1 / speed.steps_per_token > SURELY * better_tokens else None
