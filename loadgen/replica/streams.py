"""A streamed answer on its way to the client, broken on purpose where a fault says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.replica.chunks import error_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadgen.replica.chunks import Chunks
    from loadgen.replica.faults import CutFault
    from loadgen.replica.job import Choice
    from loadgen.replica.refusal import Refusal
    from loadgen.replica.wire import BodyWriter


class TokenStream:
    """The sink of a streamed job.

    Args:
        writer: Where the events go.
        chunks: Makes them.
        error: Puts a refusal into the engine's words.
        cut: After how many tokens the stream breaks; None for never.
    """

    __slots__ = ("_chunks", "_cut", "_error", "_opened", "_over", "_sent", "_writer", "cut_off")

    def __init__(
        self,
        writer: BodyWriter,
        chunks: Chunks,
        error: Callable[[Refusal], bytes],
        cut: CutFault | None,
    ) -> None:
        self._writer = writer
        self._chunks = chunks
        self._error = error
        self._cut = cut
        self._opened = False
        self._sent = 0
        self._over = False
        self.cut_off = False
        """The fault has struck."""

    def deliver(self, choice: Choice, generated: int) -> None:
        """Send the tokens that are new, all in one write."""
        if self._over:
            return
        if self._cut is not None and self._sent + generated - choice.sent > self._cut.after_tokens:
            self._break(choice, self._cut)
            return
        self._send(choice, generated)

    def close(self) -> None:
        """Send what comes after the last token."""
        if not self._over:
            self._over = True
            self._writer.write(self._chunks.closing())

    def fail(self, refusal: Refusal) -> None:
        """Say in the stream that it will not go on, as vLLM does when its engine dies."""
        if not self._over:
            self._over = True
            self._writer.write(error_event(self._error(refusal)))

    def _send(self, choice: Choice, generated: int) -> None:
        token = self._chunks.token
        if self._opened and generated == choice.sent + 1:
            self._sent += 1
            self._writer.write(token(choice, choice.sent))
            return
        events = [token(choice, index) for index in range(choice.sent, generated)]
        if not self._opened:
            events.insert(0, self._chunks.opening())
            self._opened = True
        self._sent += generated - choice.sent
        self._writer.write(b"".join(events))

    def _break(self, choice: Choice, cut: CutFault) -> None:
        """Send what is still allowed, and break."""
        allowed = cut.after_tokens - self._sent
        if allowed > 0:
            self._send(choice, choice.sent + allowed)
        self._end(self._chunks.token(choice, choice.sent + allowed), cut)

    def _end(self, next_event: bytes, cut: CutFault) -> None:
        self._over = self.cut_off = True
        if cut.how == "torn":
            self._writer.tear(next_event)
        elif cut.how == "fin":
            self._writer.close()
        elif cut.how == "rst":
            self._writer.reset()
