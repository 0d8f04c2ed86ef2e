"""Learns how many bytes of a prompt make a token, from what engines say of their prompts."""

from __future__ import annotations

USUAL_BYTES_PER_TOKEN = 4.0
"""Before anything is known; English text in common tokenizers has 3 to 5."""

LEAST, MOST = 0.5, 16.0
"""What is still credible: from one token a character of some scripts to pages of white space."""

FAR = 4.0
"""An estimate that is off by more tells of something else than text: of pictures, for one."""

LEARN = 0.2
"""Share of what one prompt tells that is believed."""

MAX_MODELS = 256
"""Models learned apart; names beyond share what is usual."""

EVERY = 16
"""Of a model that is known, one answer in so many is looked at."""

KNOWN_AFTER = 32
"""Answers after which a model counts as known."""


class TokenRatio:
    """Bytes per token, by model."""

    __slots__ = ("_by_model", "_looked", "_seen")

    def __init__(self) -> None:
        self._by_model: dict[str | None, float] = {}
        self._seen: dict[str | None, int] = {}
        self._looked = 0

    def of(self, model: str | None) -> float:
        """Bytes in one token of a prompt for ``model``."""
        return self._by_model.get(model, USUAL_BYTES_PER_TOKEN)

    def wanted(self, model: str | None) -> bool:
        """Whether the usage in an answer of ``model`` is worth looking for."""
        if self._seen.get(model, 0) < KNOWN_AFTER:
            return True
        self._looked += 1
        return self._looked % EVERY == 0

    def learn(self, model: str | None, estimated_tokens: int, told_tokens: int) -> None:
        """An engine told the length of a prompt that had been estimated.

        Args:
            model: Whose tokenizer it is.
            estimated_tokens: By the bytes per token that were believed when the prompt came; the
                same as told for a prompt of token ids, which changes nothing.
            told_tokens: By the engine.
        """
        if not told_tokens / FAR <= estimated_tokens <= told_tokens * FAR or told_tokens < 1:
            return
        if model not in self._by_model and len(self._by_model) >= MAX_MODELS:
            return
        ratio = self.of(model) * (estimated_tokens / told_tokens) ** LEARN
        self._by_model[model] = min(max(ratio, LEAST), MOST)
        self._seen[model] = self._seen.get(model, 0) + 1
