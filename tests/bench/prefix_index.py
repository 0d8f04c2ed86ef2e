"""What a decision pays for the prefix index: 2 million blocks, prompts of 16,000 tokens.

Prompts come in random order, so that neither their blocks nor their neighbours' are in the
processor's caches; a loop over one prompt would show a third of these figures.
"""

from __future__ import annotations

import time
from random import Random
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from router.core.prefix_index import PrefixIndex

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS = 2_000_000
PROMPT_BLOCKS = 64
BLOCK_TOKENS = 256
SHARED_BLOCKS = 16
"""The prompts of one group begin with so many common blocks, and all replicas hold these."""
GROUP = 64
ROUNDS = 5
PROMPTS = 400

Prompt = tuple[int, ...]


class Row(NamedTuple):
    """One figure."""

    replicas: int
    blocks: int
    mib: float
    """Memory of the index."""
    what: str
    cpu_us: float
    """CPU for one prompt: the median of some rounds."""
    goal_us: float


def run() -> list[Row]:
    """Measure."""
    return [*measure(8, 12, 40), *measure(128, 60, 40)]


def measure(replicas: int, match_goal_us: float, sent_goal_us: float) -> list[Row]:
    """The figures for a fleet of so many replicas."""
    rng = Random(7)
    names = [f"10.0.0.{number}:8000" for number in range(replicas)]
    index = PrefixIndex(max_blocks=BLOCKS)
    for name in names:
        index.capacity(name, BLOCKS * BLOCK_TOKENS)
    held, heads = fill(index, names, rng)
    sample = [rng.choice(held) for _ in range(PROMPTS * ROUNDS)]
    fresh = iter([_grown(rng, heads) for _ in range(PROMPTS * ROUNDS)])
    known, placed = iter(sample), iter(sample)
    strange = iter([_random_keys(rng, PROMPT_BLOCKS) for _ in sample])
    known, placed = iter(sample), iter(sample)
    acts: list[tuple[str, float, Callable[[], object]]] = [
        ("match, unknown", match_goal_us, lambda: index.match(next(strange), BLOCK_TOKENS)),
        ("match, known", match_goal_us, lambda: index.match(next(known)[1], BLOCK_TOKENS)),
        ("sent, known", sent_goal_us, lambda: index.sent(*next(placed), BLOCK_TOKENS)),
        (
            "sent, new after a known head; as much is evicted",
            sent_goal_us,
            lambda: index.sent(rng.choice(names), next(fresh), BLOCK_TOKENS),
        ),
    ]
    blocks, mib = index.blocks, index.bytes / 2**20
    return [
        Row(replicas, blocks, mib, what, _median_us(act), goal_us) for what, goal_us, act in acts
    ]


def fill(
    index: PrefixIndex, names: list[str], rng: Random
) -> tuple[list[tuple[str, Prompt]], list[Prompt]]:
    """Send prompts until the index is full; returns them with their replicas, and their heads."""
    held: list[tuple[str, Prompt]] = []
    heads: list[Prompt] = []
    while index.blocks < BLOCKS * 0.995:
        head = _random_keys(rng, SHARED_BLOCKS)
        heads.append(head)
        for name in names:
            index.sent(name, head, BLOCK_TOKENS)
        for _ in range(GROUP):
            prompt = _grown(rng, [head])
            name = names[len(held) % len(names)]
            index.sent(name, prompt, BLOCK_TOKENS)
            held.append((name, prompt))
    return held, heads


def _grown(rng: Random, heads: list[Prompt]) -> Prompt:
    return rng.choice(heads) + _random_keys(rng, PROMPT_BLOCKS - SHARED_BLOCKS)


def _random_keys(rng: Random, count: int) -> Prompt:
    return tuple(rng.getrandbits(64) for _ in range(count))


def _median_us(act: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(PROMPTS):
            act()
        rounds.append((time.process_time() - start) / PROMPTS * 1e6)
    return median(rounds)


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    shown = Table(
        "replicas", "blocks", "MiB", "what", "CPU us", "goal us", title="prefix index, 16k prompts"
    )
    for row in rows:
        size = str(row.replicas), f"{row.blocks:,}", f"{row.mib:.0f}"
        shown.add_row(*size, row.what, f"{row.cpu_us:.1f}", f"{row.goal_us:.0f}")
    return shown


if __name__ == "__main__":
    Console().print(table(run()))
