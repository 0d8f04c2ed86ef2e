"""Which objective a request has: how soon its first token is wanted, and how fast the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from policies.slo import SloError, parse_slo

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_OBJECTIVE: Final = "none"
"""How the absence of an objective is written."""


class Objective(NamedTuple):
    """An objective, ready to be worked out."""

    ttft_s: float | None = None
    """The limit of a prompt of ``free_tokens`` and less; None: no objective."""

    s_per_token: float = 0.0
    """Added for each prompt token above ``free_tokens``."""

    free_tokens: int = 0
    tpot_s: float | None = None


def read_objective(text: str) -> Objective:
    """Read an objective as the configuration writes it: ``ttft=2s,tpot=60ms``, or ``none``.

    Raises:
        SloError: It is not written so, or it names the time to the end of the answer, which
            depends on how much the model has to say.
    """
    if text == NO_OBJECTIVE:
        return Objective()
    slo = parse_slo(text)
    if slo.e2e_s is not None:
        msg = "e2e is no objective of a request; ttft and tpot are"
        raise SloError(msg)
    return Objective(slo.ttft_s, slo.ttft_s_per_token, slo.ttft_free_tokens, slo.tpot_s)


class Objectives:
    """The objectives of all requests: of the class that a request names, else of its model.

    Args:
        default: Where neither is listed; ``ttft=2s,tpot=60ms``, or ``none``.
        models: By model.
        classes: By class.

    Raises:
        SloError: One is not written as it should be.
    """

    __slots__ = ("_classes", "_default", "_models")

    def __init__(
        self,
        default: str = NO_OBJECTIVE,
        models: Mapping[str, str] | None = None,
        classes: Mapping[str, str] | None = None,
    ) -> None:
        self._default = read_objective(default)
        self._models: dict[str | None, Objective] = {
            name: read_objective(text) for name, text in (models or {}).items()
        }
        self._classes = {name: read_objective(text) for name, text in (classes or {}).items()}

    @property
    def classes(self) -> frozenset[str]:
        """The classes that a request may name."""
        return frozenset(self._classes)

    def of(
        self, model: str | None, slo_class: str | None, prompt_tokens: int
    ) -> tuple[float | None, float | None]:
        """Work out the objective of one request.

        Args:
            model: The model that it asks for.
            slo_class: The class that it names, one of :attr:`classes`; None: it names none.
            prompt_tokens: Length of its prompt.

        Returns:
            The TTFT and the time per output token that are wanted, in seconds; None: no objective.
        """
        if slo_class is not None:
            objective = self._classes[slo_class]
        else:
            objective = self._models.get(model, self._default)
        ttft_s, s_per_token, free_tokens, tpot_s = objective
        if ttft_s is not None and prompt_tokens > free_tokens:
            ttft_s += s_per_token * (prompt_tokens - free_tokens)
        return ttft_s, tpot_s


NO_OBJECTIVES: Final = Objectives()
"""Nothing is wanted."""
