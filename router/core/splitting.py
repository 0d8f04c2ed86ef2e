"""The two legs of a split request, until the first token of its answer.

One replica computes the prompt, another answers with its KV. Both are charged when the request is
sent: the one with the prefill, the other with the place that the KV will take. Where one leg comes
to nothing, so does the other at once, for else its KV would be kept for minutes; the request is
then sent again like any whose attempt failed, and may be split otherwise, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.core.actions import Cancel

if TYPE_CHECKING:
    from policies.transfer import Transfer
    from router.core.actions import Actions
    from router.core.books import Books
    from router.core.estimator import Estimator
    from router.core.judging import Judge
    from router.core.request import Attempt, Request

LEARN: Final = 0.1
"""Share of what a transfer tells of the link that is believed."""

LEAST_TOKENS: Final = 512
"""A shorter transfer tells of latencies only."""

MOST_FACTOR: Final = 4.0
"""One transfer tells at most so many times what was believed, or as little of it."""


class Splitting:
    """Follows the legs of split requests.

    Args:
        books: Who ends attempts.
        judge: Told of legs that were dropped, or answered.
        estimator: Told of prompts that were computed.
    """

    def __init__(self, books: Books, judge: Judge, estimator: Estimator) -> None:
        self._books = books
        self._judge = judge
        self._estimator = estimator

    def prefilled(self, leg: Attempt, now: float) -> None:
        """A prompt was computed; its KV goes on its way."""
        request, replica = leg.request, leg.replica
        split, decode = request.split, request.attempt
        self._estimator.prefilled(leg, now)
        replica.silence.heard(now)
        replica.meter.first_token(now - leg.started_s, leg.expected_s, leg.prefill_s)
        self._books.close(leg, now, "prefilled")
        self._judge.answered(leg, 200, now)
        if split is None or decode is None:
            return
        if decode.reports:  # where both legs are sent at once, the first token may come sooner
            request.split = None
            return
        target = decode.replica
        split.prefilled_s = now
        split.undisturbed = target.forecast is not None and not target.forecast.prefill_tokens
        if target.in_flight == 1:
            target.silence.woken(now)  # it had nothing to do until now
        if target.transfer is not None:
            target.transfer.pending_tokens += request.facts.prompt_tokens

    def unusable(self, leg: Attempt, now: float) -> None:
        """The prompt was computed, but nobody can go on from it: its attempt serves it whole."""
        self._books.counters.prefills_unusable += 1
        self._books.close(leg, now, "unusable")
        self._judge.answered(leg, 200, now)
        leg.request.split = None

    def first_token(self, attempt: Attempt, now: float) -> None:
        """The answer began: the KV has come."""
        request, replica = attempt.request, attempt.replica
        split, transfer = request.split, replica.transfer
        if split is None or transfer is None or split.prefilled_s is None:
            return
        tokens, forecast = request.facts.prompt_tokens, replica.forecast
        alone = transfer.pending_tokens == tokens  # on the link
        if forecast is not None and alone and tokens >= LEAST_TOKENS:
            undisturbed = split.undisturbed and not forecast.prefill_tokens
            took_s = now - split.prefilled_s - forecast.step_s - transfer.latency_s
            if undisturbed:
                _learn(transfer, max(took_s, 0.0) / tokens)
        self.over(request)

    def over(self, request: Request) -> None:
        """Its two legs are one answer from here on, or none."""
        split, decode = request.split, request.attempt
        request.split = None
        if split is None or split.prefilled_s is None or decode is None:
            return
        transfer = decode.replica.transfer
        if transfer is not None:
            transfer.pending_tokens -= request.facts.prompt_tokens

    def part(self, attempt: Attempt, now: float) -> Actions:
        """One leg is over, and its books are still open: end the other one.

        Args:
            attempt: The leg that is over; its own books are the caller's.
            now: The time.

        Returns:
            What drops the other leg; nothing if it was over.
        """
        request = attempt.request
        split, decode = request.split, request.attempt
        if split is None:
            return ()
        leg = split.leg
        if attempt is not leg:
            self.over(request)
            return () if leg is None else self._drop(leg, now)
        request.split = None
        if decode is None:
            return ()
        request.tried = tuple(replica for replica in request.tried if replica is not decode.replica)
        request.tried += (attempt.replica,)
        return self._drop(decode, now)

    def _drop(self, attempt: Attempt, now: float) -> Actions:
        self._books.close(attempt, now, "parted")
        self._judge.left(attempt)
        return (Cancel(attempt),)


def _learn(transfer: Transfer, seen_s: float) -> None:
    """The KV of a token took so long."""
    believed_s = transfer.token_s
    seen_s = min(max(seen_s, believed_s / MOST_FACTOR), believed_s * MOST_FACTOR)
    transfer.token_s += LEARN * (seen_s - believed_s)
