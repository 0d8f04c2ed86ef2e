"""A second try beside the first, for streams whose first token is late.

The first answer that begins is the client's, and the other try is dropped at once. It takes the
place of a retry: it is charged to the same budget, and where one try fails the other goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.core.actions import Cancel, Hedge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from router.core.actions import Actions
    from router.core.books import Books
    from router.core.judging import Judge
    from router.core.placement import Placement
    from router.core.request import Attempt, Request
    from router.core.retry import RetryBudget

EXPECTED_FACTOR: Final = 2.0
"""No second try before so many times what the first token was expected to take."""


class Hedging:
    """Begins second tries, and ends the one of two that came off worse.

    Args:
        after_s: A first token that takes so long is late; 0: never.
        placement: Where a request may go.
        books: Who sends and ends attempts.
        budget: What a second try costs.
        judge: Told of tries that were dropped.
    """

    def __init__(
        self, after_s: float, placement: Placement, books: Books, budget: RetryBudget, judge: Judge
    ) -> None:
        self.after_s = after_s
        self._placement = placement
        self._books = books
        self._budget = budget
        self._judge = judge

    def due(self, requests: Iterable[Request], now: float) -> Actions:
        """Begin second tries; to be called a few times a second.

        Args:
            requests: All that are open.
            now: The time.
        """
        late = [request for request in requests if self._is_late(request, now)]
        return [action for request in late for action in self._try_again(request, now)]

    def begins(self, attempt: Attempt, now: float) -> Actions:
        """The answer to one of two tries begins: drop the other one."""
        request = attempt.request
        loser = request.attempt if request.hedge is attempt else request.hedge
        if loser is None:
            return ()
        if request.hedge is attempt:
            self._books.counters.hedges_won += 1
        self._books.close(loser, now, "hedged")
        self._judge.left(loser)
        return (Cancel(loser),)

    def _is_late(self, request: Request, now: float) -> bool:
        attempt = request.attempt
        if attempt is None or request.hedge is not None or request.relayed or attempt.is_retry:
            return False
        if request.split is not None:
            return False
        expected_s = attempt.predicted_ttft_s or attempt.expected_s
        late_s = max(self.after_s, EXPECTED_FACTOR * expected_s)
        return request.facts.streamed and now - attempt.started_s >= late_s

    def _try_again(self, request: Request, now: float) -> Actions:
        books, budget = self._books, self._budget
        if not self._placement.others(request, now) or not budget.room(len(books.open)):
            return ()
        choice = self._placement.place(request, now)
        if choice is None or choice.hold or choice.prefill is not None:
            return ()
        if not budget.take(len(books.open)):
            return ()
        attempt = books.open_attempt(request, choice, now, is_retry=True)
        request.hedge = attempt
        books.counters.hedged += 1
        return (Hedge(attempt),)
