"""Which attempts are made again, and how many of them at most."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.core.request import Failure
from router.core.retry import (
    Next,
    Outlook,
    RetryBudget,
    RetryRules,
    RetrySettings,
    Tries,
)

SETTINGS = RetrySettings()
FINE = Outlook(others=True, active=100, may_hold=True)


def build():
    budget = RetryBudget(SETTINGS)
    return RetryRules(SETTINGS, budget), budget


@pytest.mark.parametrize("failure", list(Failure))
def test_a_first_failure_goes_elsewhere(failure):
    rules, budget = build()
    assert rules.after_failure(Tries(attempts=1), failure, FINE).then is Next.ELSEWHERE
    assert budget.retrying == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_these_statuses_are_tried_elsewhere(status):
    rules, _ = build()
    assert rules.after_status(Tries(attempts=1), status, FINE).then is Next.ELSEWHERE


@pytest.mark.parametrize("status", [200, 301, 400, 401, 404, 408, 413, 422, 501, 504])
def test_any_other_status_is_the_clients(status):
    rules, budget = build()
    assert rules.after_status(Tries(attempts=1), status, FINE) == (Next.RELAY, "final")
    assert budget.taken_total == 0


def test_a_request_under_which_two_replicas_broke_breaks_no_third():
    settings = RetrySettings(max_broken=2)
    rules = RetryRules(settings, RetryBudget(settings))
    tries = Tries(attempts=1)
    assert rules.after_failure(tries, Failure.RESET, FINE).then is Next.ELSEWHERE
    tries.attempts = 2
    verdict = rules.after_failure(tries, Failure.PROTOCOL, FINE)
    assert verdict == (Next.FAIL, "2 replicas broke under it")


def test_a_refused_connection_is_no_request_s_fault():
    rules, _ = build()
    tries = Tries(attempts=1)
    rules.after_failure(tries, Failure.CONNECT, FINE)
    tries.attempts = 2
    assert rules.after_failure(tries, Failure.CONNECT, FINE).then is Next.ELSEWHERE
    assert tries.broken == 0


def test_the_second_server_error_is_the_clients():
    rules, _ = build()
    tries = Tries(attempts=1)
    assert rules.after_status(tries, 500, FINE).then is Next.ELSEWHERE
    tries.attempts = 2
    assert rules.after_status(tries, 502, FINE) == (Next.RELAY, "2 replicas erred on it")


def test_back_pressure_is_no_error():
    rules, _ = build()
    tries = Tries(attempts=1)
    rules.after_status(tries, 503, FINE)
    tries.attempts = 2
    assert rules.after_status(tries, 429, FINE).then is Next.ELSEWHERE


def test_tries_are_counted():
    rules, _ = build()
    tries = Tries(attempts=3)
    assert rules.after_failure(tries, Failure.CONNECT, FINE) == (
        Next.FAIL,
        "all tries are used up",
    )
    assert rules.after_status(tries, 503, FINE) == (Next.RELAY, "all tries are used up")


@pytest.mark.parametrize(
    ("left_s", "retried"), [(None, True), (2.1, True), (2.0, False), (-1.0, False)]
)
def test_the_deadline_caps_everything(left_s, retried):
    rules, budget = build()
    outlook = FINE._replace(left_s=left_s, needs_s=2.0)
    failed = rules.after_failure(Tries(attempts=1), Failure.RESET, outlook)
    answered = rules.after_status(Tries(attempts=1), 503, outlook)
    assert (failed.then is Next.ELSEWHERE) is retried
    assert (answered.then is Next.ELSEWHERE) is retried
    assert budget.retrying == 2 * retried


def test_with_no_other_replica_a_failed_request_waits_if_it_may():
    rules, budget = build()
    none = FINE._replace(others=False)
    assert rules.after_failure(Tries(attempts=1), Failure.RESET, none).then is Next.LATER
    none = none._replace(may_hold=False)
    verdict = rules.after_failure(Tries(attempts=1), Failure.RESET, none)
    assert verdict == (Next.FAIL, "no other replica")
    assert rules.after_status(Tries(attempts=1), 503, none) == (Next.RELAY, "no other replica")
    assert budget.retrying == 0


def test_over_budget_lost_work_waits_and_a_refusal_is_relayed():
    rules, budget = build()
    for _ in range(20):
        assert rules.after_failure(Tries(attempts=1), Failure.RESET, FINE).then is Next.ELSEWHERE
    verdict = rules.after_failure(Tries(attempts=1), Failure.RESET, FINE)
    assert verdict == (Next.LATER, "retry budget is spent")
    verdict = rules.after_status(Tries(attempts=1), 503, FINE)
    assert verdict == (Next.RELAY, "retry budget is spent")
    assert (budget.refused_total, budget.taken_total) == (2, 20)
    budget.done()
    assert rules.after_failure(Tries(attempts=1), Failure.RESET, FINE).then is Next.ELSEWHERE


def test_three_retries_are_always_allowed_at_once():
    budget = RetryBudget(SETTINGS)
    assert [budget.take(1) for _ in range(4)] == [True, True, True, False]


def test_quick_refusals_cannot_amplify():
    rules, budget = build()
    attempts = 0
    for _ in range(1000):
        budget.arrived()
        tries = Tries(attempts=1)
        while rules.after_status(tries, 503, FINE).then is Next.ELSEWHERE:
            tries.attempts += 1
            budget.done()
        attempts += tries.attempts
    assert 1150 <= attempts <= 1203


def test_quiet_times_save_up_a_bounded_number():
    budget = RetryBudget(SETTINGS)
    for _ in range(10_000):
        budget.arrived()
    taken = 0
    while budget.take(100, for_status=True):
        budget.done()
        taken += 1
    assert taken == SETTINGS.status_burst


def test_a_request_is_blamed_once():
    tries = Tries()
    assert [tries.blame(), tries.blame(), tries.blame()] == [True, False, False]


class Outage(RuleBasedStateMachine):
    """Any mixture of failures, statuses and ends, against the bounds."""

    @initialize()
    def begin(self):
        self.rules, self.budget = build()
        self.active = {}
        self.retrying = set()
        self.arrived = self.numbers = 0
        self.sent = 0
        self.for_status = 0

    @rule(count=st.integers(1, 40))
    def arrive(self, count):
        for _ in range(count):
            self.budget.arrived()
            self.arrived += 1
            self.numbers += 1
            self.sent += 1
            self.active[self.numbers] = Tries(attempts=1)

    def attempt_over(self, number):
        if number in self.retrying:
            self.retrying.discard(number)
            self.budget.done()

    def after(self, number, verdict, *, for_status):
        tries = self.active[number]
        if verdict.then is Next.ELSEWHERE:
            self.for_status += for_status
            assert len(self.retrying) < max(0.2 * len(self.active), 3)
            self.retrying.add(number)
            tries.attempts += 1
            self.sent += 1
        else:
            del self.active[number]
            assert (verdict.then is Next.RELAY) == for_status

    @rule(
        share=st.floats(0, 1),
        failure=st.sampled_from(list(Failure)),
        others=st.booleans(),
        may_hold=st.booleans(),
        left_s=st.none() | st.floats(-5, 5),
    )
    def break_some(self, share, failure, others, may_hold, left_s):
        for number in list(self.active)[: round(share * len(self.active))]:
            self.attempt_over(number)
            outlook = Outlook(others, len(self.active), may_hold, left_s)
            tries = self.active[number]
            verdict = self.rules.after_failure(tries, failure, outlook)
            if verdict.then is Next.ELSEWHERE:
                assert others
                assert left_s is None or left_s > 0
            if verdict.then is Next.LATER:
                assert may_hold
            self.after(number, verdict, for_status=False)

    @rule(share=st.floats(0, 1), status=st.sampled_from([200, 400, 429, 500, 502, 503]))
    def answer_some(self, share, status):
        for number in list(self.active)[: round(share * len(self.active))]:
            self.attempt_over(number)
            outlook = Outlook(True, len(self.active), True)
            verdict = self.rules.after_status(self.active[number], status, outlook)
            if verdict.then is Next.ELSEWHERE:
                assert status in SETTINGS.statuses
            self.after(number, verdict, for_status=True)

    @invariant()
    def bounds_hold(self):
        assert self.budget.retrying == len(self.retrying)
        assert self.for_status <= 3 + 0.2 * self.arrived
        for tries in self.active.values():
            assert tries.attempts <= SETTINGS.max_attempts
            assert tries.broken < SETTINGS.max_broken
            assert tries.errors < SETTINGS.max_errors

    @invariant()
    def attempts_are_what_was_arrived_and_taken(self):
        assert self.sent == self.arrived + self.budget.taken_total


TestOutage = Outage.TestCase
TestOutage.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
