"""The whole answer to a request, known before the first token of it is due.

The simulated model is a function, so there is nothing to wait for: what the engine decides is
only *when* each token comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from loadgen.engine import language_model
from loadgen.tokens import OUTPUT_WORDS, Special

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True, frozen=True)
class Limits:
    """What ends an answer."""

    most: int
    """Its largest number of tokens."""

    least: int = 0
    """It ends by nothing but ``most`` before it has this many tokens."""

    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    include_stop: bool = False
    """Whether the stop string that ended the answer is part of it."""


@dataclass(slots=True, frozen=True)
class Answer:
    """An answer, token by token."""

    tokens: list[int]
    pieces: list[str]
    """The text that each token adds."""

    finish_reason: str
    stop_reason: str | int | None
    """The stop string or token that ended it; None for any other end."""


def compose(state: int, position: int, limits: Limits) -> Answer:
    """Write the answer to a prompt of ``position`` tokens that left the model in ``state``."""
    least = limits.most if limits.ignore_eos else limits.least
    tokens = language_model.write(state, position, limits.most, least)
    ended = tokens[-1] == Special.END_OF_TEXT
    pieces = [OUTPUT_WORDS[token] for token in tokens[: len(tokens) - ended]] + [""] * ended
    by_token = _first_stop_token(tokens, limits)
    by_text = _first_stop_string(pieces, limits)
    if by_text is not None and (by_token is None or by_text[0] <= by_token):
        index, cut, stop = by_text
        return Answer(tokens[: index + 1], _cut(pieces[: index + 1], cut), "stop", stop)
    if by_token is not None:
        stop_token = tokens[by_token]
        kept = [*pieces[:by_token], pieces[by_token] if limits.include_stop else ""]
        return Answer(tokens[: by_token + 1], kept, "stop", stop_token)
    return Answer(tokens, pieces, "stop" if ended else "length", None)


def _first_stop_token(tokens: Sequence[int], limits: Limits) -> int | None:
    if not limits.stop_token_ids:
        return None
    for index in range(max(limits.least - 1, 0), len(tokens)):
        if tokens[index] in limits.stop_token_ids:
            return index
    return None


def _first_stop_string(pieces: Sequence[str], limits: Limits) -> tuple[int, int, str] | None:
    """The token with which the first stop string is complete, where the text is cut, and which."""
    if not limits.stop:
        return None
    text = "".join(pieces)
    ends = list(accumulate(map(len, pieces)))
    ignored = ends[limits.least - 1] if limits.least > 0 else 0
    best: tuple[int, int, str] | None = None
    for stop in limits.stop:
        at = text.find(stop, max(0, ignored - len(stop) + 1))
        if at < 0:
            continue
        end = at + len(stop)
        index = next(i for i, piece_end in enumerate(ends) if piece_end >= end)
        if best is None or index < best[0]:
            best = (index, end if limits.include_stop else at, stop)
    return best


def _cut(pieces: Sequence[str], length: int) -> list[str]:
    """``pieces``, of which only the first ``length`` characters together remain."""
    kept = []
    for piece in pieces:
        kept.append(piece[:length])
        length = max(0, length - len(piece))
    return kept
