"""What becomes of a request after an attempt that came to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.core.actions import Abort
from router.core.request import Failure, State
from router.core.retry import Next, Outlook, RetryRules, Tries, Verdict
from router.core.waiting import unanswered

if TYPE_CHECKING:
    from router.core.actions import Actions
    from router.core.books import Books
    from router.core.placement import Placement
    from router.core.replica import Replica
    from router.core.request import Attempt, Request
    from router.core.retry import RetryBudget, RetrySettings
    from router.core.waiting import Waiting

LAST_TRY_WAITS_S: Final = 1.0
"""Whoever died with those that a request broke under is known by then: four looks later."""


class Retrying:
    """Asks the rules of retries about live requests.

    Args:
        settings: The rules.
        budget: Charged when a retry is decided.
        books: What is open.
        placement: Where a request may go.
        waiting: Where it may wait.
    """

    def __init__(
        self,
        settings: RetrySettings,
        budget: RetryBudget,
        books: Books,
        placement: Placement,
        waiting: Waiting,
    ) -> None:
        self.settings = settings
        self._rules = RetryRules(settings, budget)
        self._books = books
        self._placement = placement
        self._waiting = waiting

    def after_failure(self, attempt: Attempt, failure: Failure, now: float) -> Verdict:
        """The attempt broke; its books are closed, and its replica was judged."""
        request = attempt.request
        if failure is Failure.CONNECT:
            request.unreached += 1
            request.unreached_continued += request.relayed
        # Who garbles its answers will hardly be another one soon: waiting is for those that died.
        dead = failure is not Failure.PROTOCOL
        tries, outlook = tries_of(request), self._outlook(request, now, may_hold=dead)
        if not request.relayed:
            return self._rules.after_failure(tries, failure, outlook)
        if not request.continuable:
            return Verdict(Next.FAIL, "nobody can go on with the answer")
        in_vain = failure is not Failure.CONNECT and not attempt.output_tokens
        return self._rules.after_break(tries, outlook, in_vain=in_vain)

    def after_status(self, attempt: Attempt, status: int, now: float) -> Verdict:
        """The head of an error came, in answer to an attempt whose replica was judged."""
        request = attempt.request
        tries, outlook = tries_of(request), self._outlook(request, now)
        if not request.relayed:
            return self._rules.after_status(tries, status, outlook)
        if status not in self.settings.statuses:
            return Verdict(Next.FAIL, "nobody can go on with the answer")
        return self._rules.after_break(tries, outlook, in_vain=False)

    def go_on(self, request: Request, verdict: Verdict, last: Replica, now: float) -> Actions:
        """What becomes of a request that lost its replica, ``last``."""
        if verdict.then is Next.ELSEWHERE:
            choice = self._placement.place(request, now)
            if choice is not None:
                return self._books.send(request, choice, now, is_retry=True)
            self._rules.budget.done()
        if verdict.then is Next.LAST:
            return self._waiting.park(request, now, at_least_s=LAST_TRY_WAITS_S)
        if verdict.then is Next.LATER:
            return self._waiting.park(request, now)
        return self.give_up(request, last, now)

    def give_up(self, request: Request, last: Replica, now: float) -> Actions:
        """The request has failed; whose client has a part of an answer can only be broken off."""
        if request.relayed:
            self._books.end(request, State.FAILED, now, last)
            return (Abort(request, "upstream_failed", "The replica failed in mid-answer."),)
        return (self._books.refuse(unanswered(request), now, last),)

    def _outlook(self, request: Request, now: float, *, may_hold: bool = True) -> Outlook:
        deadline_s = request.facts.deadline_s
        left_s = None if deadline_s is None else deadline_s - (now - request.arrived_s)
        return Outlook(
            others=self._placement.others(request, now),
            active=len(self._books.open),
            may_hold=may_hold and self._waiting.may_wait,
            left_s=left_s,
        )


def tries_of(request: Request) -> Tries:
    """What happened to the request so far, its attempts and continuations counted.

    Where nobody was there to take it, nothing was tried: in an outage every replica refuses.
    """
    tries = request.tries
    if tries is None:
        tries = request.tries = Tries()
    tries.attempts = request.attempts - request.unreached
    tries.continued = request.continued - request.unreached_continued
    return tries
