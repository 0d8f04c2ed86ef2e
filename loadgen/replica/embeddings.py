"""Embeddings: a small vector that is a function of the tokens. The engine has no part in it."""

from __future__ import annotations

from math import sqrt
from random import Random
from typing import TYPE_CHECKING, Final

from loadgen.engine import language_model

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE: Final = 64


def embedding(tokens: Sequence[int]) -> list[float]:
    """A unit vector."""
    chance = Random(language_model.read(language_model.start("embedding"), tokens))
    vector = [chance.gauss(0.0, 1.0) for _ in range(SIZE)]
    length = sqrt(sum(value * value for value in vector))
    return [round(value / length, 6) for value in vector]
