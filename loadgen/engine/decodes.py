"""The sequences in decode, advanced together.

Each of them gets one token in each step. So one counter of steps stands for all their lengths,
and what a step needs is a sum that no sequence has to be visited for: the contexts grow by their
number, and a sequence needs a new block in every sixteenth step, at its own phase.
"""

from __future__ import annotations

from heapq import heappop, heappush

from loadgen.engine.sequence import Sequence, State


class Decodes:
    """All sequences in decode."""

    __slots__ = ("_block_tokens", "_ends", "_joined", "_lead", "_phases", "number", "step")

    def __init__(self, block_tokens: int) -> None:
        self.step = 0
        """Decode steps so far."""
        self.number = 0
        """Sequences in decode."""
        self._block_tokens = block_tokens
        self._lead = 0
        self._phases = [0] * block_tokens
        self._ends: list[tuple[int, int, Sequence]] = []
        self._joined = 0

    @property
    def contexts(self) -> int:
        """Tokens in the contexts of all sequences together."""
        return self.number * self.step + self._lead

    def join(self, sequence: Sequence) -> None:
        """``sequence`` has its prompt computed and its next token generated."""
        sequence.state = State.DECODE
        sequence.last_step = self.step + sequence.output_tokens - sequence.generated
        lead = sequence.tokens_in_all - 1 - sequence.last_step
        self.number += 1
        self._lead += lead
        self._phases[lead % self._block_tokens] += 1
        self._joined += 1
        heappush(self._ends, (sequence.last_step, self._joined, sequence))

    def leave(self, sequence: Sequence) -> None:
        """Take ``sequence`` out and write down how far it has come."""
        sequence.generated = self.generated(sequence)
        sequence.computed_tokens = sequence.prompt_tokens + sequence.generated - 1
        lead = sequence.computed_tokens - self.step
        self.number -= 1
        self._lead -= lead
        self._phases[lead % self._block_tokens] -= 1

    def generated(self, sequence: Sequence) -> int:
        """Output tokens of a sequence in decode."""
        return sequence.output_tokens - sequence.last_step + self.step

    def finished(self) -> list[Sequence]:
        """The sequences whose last token has come; the caller makes them leave."""
        finished = []
        while self._ends and self._ends[0][0] <= self.step:
            last_step, _, sequence = heappop(self._ends)
            if sequence.state is State.DECODE and sequence.last_step == last_step:
                sequence.state = State.FINISHED
                finished.append(sequence)
        return finished

    def steps_to_next_end(self) -> int:
        """Steps until some sequence has its last token; there must be one in decode."""
        while True:
            last_step, _, sequence = self._ends[0]
            if sequence.state is State.DECODE and sequence.last_step == last_step:
                return last_step - self.step
            heappop(self._ends)

    def blocks_for(self, first: int, steps: int) -> int:
        """New KV blocks for ``steps`` steps, from the ``first``-th after the present one on."""
        cycles, rest = divmod(steps, self._block_tokens)
        at = self.step + first
        phases, size = self._phases, self._block_tokens
        return cycles * self.number + sum(phases[-(at + i) % size] for i in range(rest))

    def steps_within(self, blocks: int) -> int:
        """How many steps after the present one ``blocks`` new blocks suffice for."""
        cycles, rest = divmod(blocks, self.number)
        steps = 0
        phases, size = self._phases, self._block_tokens
        while (need := phases[-(self.step + 1 + steps) % size]) <= rest:
            rest -= need
            steps += 1
        return cycles * size + steps
