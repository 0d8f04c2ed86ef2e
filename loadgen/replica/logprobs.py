"""Made-up log probabilities in the right shapes: the simulated model has none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.tokens import OUTPUT_WORDS

if TYPE_CHECKING:
    from loadgen.replica.answer import Answer


def _logprob(token: int, rank: int) -> float:
    return -round(0.05 + (token % 97) / 100 + 1.5 * rank, 4)


def _alternatives(token: int, top: int) -> list[int]:
    """``token`` and the next likely ones, ``top`` in all."""
    return [(token + 37 * rank) % len(OUTPUT_WORDS) for rank in range(top)]


def of_chat(answer: Answer, first: int, last: int, top: int) -> dict[str, object]:
    """``logprobs`` of the tokens ``first`` to ``last``, exclusive, on chat completions."""

    def entry(token: int, text: str, rank: int) -> dict[str, object]:
        return {"token": text, "logprob": _logprob(token, rank), "bytes": list(text.encode())}

    content = []
    for token, piece in zip(answer.tokens[first:last], answer.pieces[first:last], strict=True):
        others = [
            entry(other, OUTPUT_WORDS[other] if rank else piece, rank)
            for rank, other in enumerate(_alternatives(token, top))
        ]
        content.append({**entry(token, piece, 0), "top_logprobs": others})
    return {"content": content}


def of_completion(answer: Answer, first: int, last: int, top: int) -> dict[str, object]:
    """``logprobs`` of the tokens ``first`` to ``last``, exclusive, on completions."""
    tokens, pieces = answer.tokens[first:last], answer.pieces[first:last]
    offset = sum(map(len, answer.pieces[:first]))
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    return {
        "text_offset": offsets,
        "token_logprobs": [_logprob(token, 0) for token in tokens],
        "tokens": pieces,
        "top_logprobs": [
            {
                OUTPUT_WORDS[other] if rank else piece: _logprob(other, rank)
                for rank, other in enumerate(_alternatives(token, max(top, 1)))
            }
            for token, piece in zip(tokens, pieces, strict=True)
        ],
    }
