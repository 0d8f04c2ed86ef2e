"""Learns from what engines tell of their prompts at the end of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.api.usage import usage_of

if TYPE_CHECKING:
    from router.core.request import Attempt
    from router.core.token_ratio import TokenRatio


def learn_usage(ratio: TokenRatio, attempt: Attempt, last: bytes) -> None:
    """Compare the told length of a prompt with the estimated one, if that is of use.

    Args:
        ratio: Who learns.
        attempt: Whose answer ended.
        last: The last read of the answer; a stream whose usage came before that teaches nothing.
    """
    facts = attempt.request.facts
    if not last or not ratio.wanted(facts.model):
        return
    usage = usage_of(last)
    if usage is not None and usage.prompt_tokens is not None:
        ratio.learn(facts.model, facts.prompt_tokens, usage.prompt_tokens)
