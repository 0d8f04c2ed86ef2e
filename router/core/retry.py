"""Which attempts are made again elsewhere, before anything of an answer was relayed.

Requests to an engine change nothing there, so any may be sent again. What must not happen: that a
request which breaks replicas goes from one to the next, that an outage is amplified by retries, and
that one is made whose answer would come after the deadline.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from router.core.outcome import Outcome, outcome_of_status
from router.core.request import Failure


@dataclass(slots=True, frozen=True, kw_only=True)
class RetrySettings:
    """How often a request is sent again, and for what."""

    max_attempts: int = 3
    """Tries of one request, each on another replica."""

    statuses: frozenset[int] = frozenset({429, 500, 502, 503})
    """Answers that are tried elsewhere. Any other one is the client's, whatever it says: a prompt
    that is too long for one replica is too long for the next."""

    max_broken: int = 3
    """So many replicas may break (reset, garble, stall) under one request: it may be the cause.
    It counts against the health of the first of them only."""

    max_errors: int = 2
    """So many may answer it with a 5xx that is no back-pressure, for the same reason."""

    max_continued: int = 5
    """So often the stream of one answer may go on elsewhere."""

    budget_share: float = 0.2
    """Retries under way, as a share of all open requests."""

    budget_least: int = 3
    """But so many at least."""

    status_share: float = 0.2
    """Retries because of a status, as a share of the requests that arrive. They end so soon that
    the budget of those under way would not bound them."""

    status_burst: int = 100
    """Largest number of these that quiet times save up."""


class Next(StrEnum):
    """What becomes of the request."""

    ELSEWHERE = "elsewhere"
    """It goes to another replica now; the budget has been charged."""
    LATER = "later"
    """It waits in the router like one that has just arrived."""
    LAST = "last"
    """It waits until it is clear who else broke, and has its last try then."""
    RELAY = "relay"
    """The client gets the answer that the replica gave."""
    FAIL = "fail"
    """The client gets an error of the router's own."""


class Verdict(NamedTuple):
    """What becomes of the request, and why."""

    then: Next
    why: str


class Outlook(NamedTuple):
    """What a retry would meet."""

    others: bool
    """Whether there is a replica that the request was not sent to, and that is not busy."""

    active: int
    """Open requests of the whole router."""

    may_hold: bool
    """Whether the request may wait in the router."""

    left_s: float | None = None
    """Until its deadline; None: it has none."""

    needs_s: float = 0.0
    """Expected until an answer could begin."""


@dataclass(slots=True)
class Tries:
    """What happened to one request so far."""

    attempts: int = 0
    """Those that reached a replica."""
    continued: int = 0
    broken: int = 0
    errors: int = 0
    blamed: bool = False
    """Whether it has counted against a replica; it does so once only."""

    def blame(self) -> bool:
        """Whether a failure counts against the replica; true the first time."""
        first, self.blamed = not self.blamed, True
        return first


class RetryBudget:
    """Bounds the retries of the whole router.

    Args:
        settings: The bounds.
    """

    __slots__ = ("_credit", "_settings", "refused_total", "retrying", "taken_total")

    def __init__(self, settings: RetrySettings) -> None:
        self._settings = settings
        self._credit = float(settings.budget_least)
        self.retrying = 0
        """Retries under way."""
        self.taken_total = 0
        self.refused_total = 0

    def arrived(self) -> None:
        """A request arrived."""
        settings = self._settings
        self._credit = min(self._credit + settings.status_share, float(settings.status_burst))

    def take(self, active: int, *, for_status: bool = False) -> bool:
        """Begin a retry, if there is room; whoever does calls :meth:`done` once it has ended.

        Args:
            active: Open requests of the whole router.
            for_status: The replica is there and said no; otherwise work was lost with it.
        """
        if not self.room(active) or (for_status and self._credit < 1.0):
            self.refused_total += 1
            return False
        if for_status:
            self._credit -= 1.0
        self.retrying += 1
        self.taken_total += 1
        return True

    def room(self, active: int) -> bool:
        """Whether one more retry may be under way."""
        settings = self._settings
        return self.retrying < max(settings.budget_share * active, settings.budget_least)

    def done(self) -> None:
        """A retry ended, however it did, or its answer began: from there on it costs no more than
        any other request."""
        self.retrying -= 1


class RetryRules:
    """Decides after each attempt that did not lead to an answer worth relaying.

    Args:
        settings: The rules.
        budget: Charged when a retry is decided.
    """

    def __init__(self, settings: RetrySettings, budget: RetryBudget) -> None:
        self.settings = settings
        self.budget = budget

    def after_failure(self, tries: Tries, failure: Failure, outlook: Outlook) -> Verdict:
        """The attempt gave no answer at all.

        A request for which there is no room now is not lost: it waits, and the backlog that a
        failing replica leaves is worked off at the pace that the others can stand.
        """
        broke = failure is not Failure.CONNECT
        tries.broken += broke
        if tries.broken >= self.settings.max_broken:
            return Verdict(Next.FAIL, f"{tries.broken} replicas broke under it")
        why_not = self._spent(tries, outlook)
        if why_not:
            return Verdict(Next.FAIL, why_not)
        if broke and self._is_last(tries, outlook):
            return Verdict(Next.LAST, "one more may break under it")
        lack = self._lack(outlook, for_status=False)
        if lack:
            return Verdict(Next.LATER if outlook.may_hold else Next.FAIL, lack)
        return Verdict(Next.ELSEWHERE, "failed")

    def after_break(self, tries: Tries, outlook: Outlook, *, in_vain: bool) -> Verdict:
        """An answer that was being relayed broke, and can go on elsewhere.

        Args:
            tries: What happened to the request so far.
            outlook: What a further try would meet.
            in_vain: The attempt that broke had reached a replica, and had brought nothing.
        """
        settings = self.settings
        tries.broken += in_vain
        if tries.broken >= settings.max_broken:
            return Verdict(Next.FAIL, f"{tries.broken} replicas broke under it")
        if tries.continued >= settings.max_continued:
            return Verdict(Next.FAIL, f"it was continued {tries.continued} times")
        if outlook.left_s is not None and outlook.left_s <= outlook.needs_s:
            return Verdict(Next.FAIL, "its deadline would pass")
        if in_vain and self._is_last(tries, outlook):
            return Verdict(Next.LAST, "one more may break under it")
        lack = self._lack(outlook, for_status=False)
        if lack:
            return Verdict(Next.LATER if outlook.may_hold else Next.FAIL, lack)
        return Verdict(Next.ELSEWHERE, "broken")

    def after_status(self, tries: Tries, status: int, outlook: Outlook) -> Verdict:
        """The head of an answer came; nothing of it was relayed yet."""
        if status not in self.settings.statuses:
            return Verdict(Next.RELAY, "final")
        if outcome_of_status(status) is Outcome.FAILURE:
            tries.errors += 1
            if tries.errors >= self.settings.max_errors:
                return Verdict(Next.RELAY, f"{tries.errors} replicas erred on it")
        why_not = self._spent(tries, outlook) or self._lack(outlook, for_status=True)
        if why_not:
            return Verdict(Next.RELAY, why_not)
        return Verdict(Next.ELSEWHERE, "status")

    def _is_last(self, tries: Tries, outlook: Outlook) -> bool:
        """Whether one more break ends it. Where a whole fleet dies, each replica may break under
        it just as it gets there; a moment later those refuse connections, which costs no try."""
        return outlook.may_hold and 1 < tries.broken == self.settings.max_broken - 1

    def _spent(self, tries: Tries, outlook: Outlook) -> str:
        if tries.attempts >= self.settings.max_attempts:
            return "all tries are used up"
        if outlook.left_s is not None and outlook.left_s <= outlook.needs_s:
            return "its deadline would pass"
        return ""

    def _lack(self, outlook: Outlook, *, for_status: bool) -> str:
        if not outlook.others:
            return "no other replica"
        if not self.budget.take(outlook.active, for_status=for_status):
            return "retry budget is spent"
        return ""
