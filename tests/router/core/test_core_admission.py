"""What is let in where the fleet is to stay fit to lose a replica, and who may be spared."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Choice, RequestFacts
from policies.least_requests import LeastRequests
from router.core.actions import Refuse, Send
from router.core.admission import LONGEST_RETRY_AFTER_S, HeadroomSettings
from router.core.dispatcher import Dispatcher, Limits
from router.core.fleet import FleetState
from router.core.headroom import RATE_SPAN_S
from router.core.health import Cause, Health
from router.core.request import Request, State
from router.core.sample import Sample

KV_BLOCKS, BLOCK_TOKENS = 10_000, 16
KV_TOKENS = KV_BLOCKS * BLOCK_TOKENS
TOKENS_PER_S = 8000.0
"""What each replica carries of prompts of 1,000 tokens: 80 % of a prefill of 0.1 s."""


class Town:
    """A dispatcher over replicas of known speed, and a clock."""

    def __init__(self, count=4, *, lose=1, models=("m",), kv=True, policy=None):
        self.now = 100.0
        self.changes = []
        self.fleet = FleetState()
        self.dispatcher = Dispatcher(
            self.fleet,
            policy or LeastRequests(),
            Random(1),
            self,
            Limits(headroom=HeadroomSettings(lose=lose)),
        )
        for name in "abcdefgh"[:count]:
            self.join(name, models, kv=kv)
        self.sent = 0

    def join(self, name, models, *, kv=True):
        replica = self.fleet.add(name, f"http://{name}")
        self.dispatcher.models_seen(replica, models)
        self.dispatcher.health_seen(replica, self.now, healthy=True, reason="ok")
        speed = replica.forecast.speed
        speed.prefill_s, speed.token_s, speed.pair_s = 0.0, 1e-4, 0.0
        if kv:
            sample = Sample(kv_blocks=KV_BLOCKS, kv_block_tokens=BLOCK_TOKENS)
            self.dispatcher.sampled(replica, sample, self.now)

    def request_ended(self, request, replica, now):
        pass

    def policy_failed(self, error):
        raise error

    def health_changed(self, change):
        self.changes.append(change)

    def arrive(self, tokens=1000, *, end=True, model="m", **facts):
        """A request comes and, as a rule, is answered at once; returns what is done with it."""
        facts = {"prompt_tokens": tokens, "max_output_tokens": 1} | facts
        self.sent += 1
        request = Request(f"q{self.sent}", RequestFacts(model, **facts), self.now)
        (action,) = self.dispatcher.request_arrived(request, self.now)
        if isinstance(action, Send) and end:
            self.end(action.attempt)
        return action

    def end(self, attempt):
        self.dispatcher.headers_received(attempt, 200, self.now)
        self.dispatcher.attempt_ended(attempt, self.now)

    def load(self, tokens_per_s, seconds, **facts):
        """Steady load of prompts of 1,000 tokens; returns the share that was let in."""
        count = round(tokens_per_s * seconds / 1000)
        let_in = 0
        for _ in range(count):
            self.now += seconds / count
            let_in += isinstance(self.arrive(**facts), Send)
        return let_in / count

    def down(self, name):
        replica = self.fleet.replicas[name]
        self.dispatcher.health_seen(replica, self.now, healthy=False, reason="down")


def test_all_is_let_in_as_long_as_nobody_asks_for_headroom():
    town = Town(lose=0)
    assert town.load(10 * TOKENS_PER_S, 60) == 1.0
    assert town.dispatcher.counters.over_headroom == 0


def test_what_the_fleet_carries_without_its_largest_is_let_in():
    assert Town().load(2.9 * TOKENS_PER_S, 60) == 1.0


def test_what_is_more_is_refused_and_no_more_than_that():
    town = Town()
    town.load(6 * TOKENS_PER_S, 30)
    assert town.load(6 * TOKENS_PER_S, 60) == pytest.approx(0.5, abs=0.02)


def test_who_is_refused_is_told_when_to_come_again():
    town = Town()
    town.load(2.9 * TOKENS_PER_S, 60)
    town.down("a")
    town.down("b")
    refuse = town.arrive()
    assert isinstance(refuse, Refuse)
    assert (refuse.status, refuse.code) == (429, "overloaded")
    assert refuse.request.state is State.REFUSED
    assert refuse.retry_after_s == pytest.approx(RATE_SPAN_S * 0.37, abs=1)  # ln(2.9 / 2)
    town.now += refuse.retry_after_s
    assert isinstance(town.arrive(), Send)


def test_the_reserve_is_there_to_be_used_up():
    town = Town()
    town.load(2.9 * TOKENS_PER_S, 60)
    town.down("a")
    assert town.load(2.9 * TOKENS_PER_S, 30) == 1.0


def test_two_replicas_of_which_one_is_lost_still_serve():
    town = Town(2)
    town.down("a")
    assert town.load(0.9 * TOKENS_PER_S, 30) == 1.0


def test_a_single_replica_cannot_be_kept_fit_to_lose_itself():
    refuse = Town(1).arrive()
    assert isinstance(refuse, Refuse)
    assert refuse.retry_after_s == LONGEST_RETRY_AFTER_S


def test_the_least_urgent_are_refused_first():
    town = Town()
    urgent = ordinary = 0
    for _ in range(600):
        town.now += 0.05  # 20,000 urgent tokens a second and as many others: 24,000 fit
        urgent += isinstance(town.arrive(priority=-1), Send)
        ordinary += isinstance(town.arrive(priority=0), Send)
    assert urgent == 600
    assert ordinary < 300


def test_made_up_priorities_take_no_memory():
    town = Town()
    for priority in range(-50, 50):
        town.arrive(priority=priority)
    (kind,) = town.dispatcher.admission._kinds.values()
    assert len(kind.tokens) == 9


def test_promised_kv_counts_until_its_request_ends():
    town = Town(2)  # 95 % of one KV cache may be promised: 152,000 tokens
    attempts = []
    while isinstance(action := town.arrive(20_000, max_output_tokens=10, end=False), Send):
        attempts.append(action.attempt)
        town.now += 60.0  # the rate of prompts is no bound
    assert len(attempts) == int(0.95 * KV_TOKENS / 20_010)
    town.end(attempts.pop())
    assert isinstance(town.arrive(20_000, max_output_tokens=10), Send)


def test_of_a_kv_cache_of_unknown_size_nothing_is_known():
    town = Town(2, kv=False)
    for _ in range(100):
        town.now += 60.0
        assert isinstance(town.arrive(20_000, end=False), Send)
    assert town.dispatcher.admission.left(town.now).kv_tokens is None


def test_cached_tokens_are_no_load():
    town = Town(2)
    prefix = tuple(range(100))
    town.arrive(prefix=prefix, prefix_block_tokens=10)
    for _ in range(1000):
        assert isinstance(town.arrive(prefix=prefix, prefix_block_tokens=10), Send)


class Waits:
    """Lets everything wait."""

    def choose(self, request, replicas, rng):
        return Choice(replicas[0], "later", hold=True)


def test_what_waits_is_load_too():
    town = Town(2, policy=Waits())
    for number in range(200):
        request = Request(f"q{number}", RequestFacts("m", 1000), town.now)
        actions = town.dispatcher.request_arrived(request, town.now)
        if actions:
            break
    assert isinstance(actions[0], Refuse)
    assert number == pytest.approx(TOKENS_PER_S * RATE_SPAN_S / 1000, abs=2)
    assert len(town.dispatcher.waiting) == number


def test_each_model_has_its_own_replicas():
    town = Town(2, models=("m",))
    town.join("x", ("other",))
    town.join("y", ("other",))
    town.load(3 * TOKENS_PER_S, 60)
    assert isinstance(town.arrive(), Refuse)
    assert isinstance(town.arrive(model="other"), Send)


def test_what_several_kinds_serve_is_shared_out():
    town = Town(2, models=("m",))
    town.join("x", ("m", "adapter"))
    town.join("y", ("m", "adapter"))
    assert town.load(2.9 * TOKENS_PER_S, 60) == 1.0
    town.load(6 * TOKENS_PER_S, 30)
    assert town.load(6 * TOKENS_PER_S, 60) == pytest.approx(0.5, abs=0.03)


def test_models_that_are_gone_are_forgotten():
    town = Town(2)
    town.arrive()
    for number in range(20):
        for replica in town.fleet.replicas.values():
            town.dispatcher.models_seen(replica, ["m", f"adapter-{number}"])
        town.arrive()
    assert len(town.dispatcher.admission._kinds) <= 2


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(-9, 9), st.booleans()), max_size=60))
def test_what_was_promised_is_given_back(arrivals):
    town = Town(2)
    attempts = []
    for tokens, priority, end in arrivals:
        town.now += 0.1
        action = town.arrive(tokens, priority=priority, end=end)
        if isinstance(action, Send) and not end:
            attempts.append(action.attempt)
    for attempt in attempts:
        town.end(attempt)
    admission = town.dispatcher.admission
    assert not admission._open
    for kind in admission._kinds.values():
        assert all(tokens == pytest.approx(0, abs=1e-6) for tokens in kind.kv_tokens.values())


# -- slow replicas -----------------------------------------------------------------------------


def slow(town, name):
    health = town.fleet.replicas[name].health
    town.fleet.health.slowed(health, 0.2, "five times slower", town.now, eject=True)
    return health


def test_a_slow_replica_is_ejected_where_the_others_carry_the_load():
    town = Town(lose=0)
    town.load(2.5 * TOKENS_PER_S, 30)
    assert slow(town, "a").state is Health.EJECTED


def test_a_slow_replica_that_is_needed_stays_with_a_smaller_share():
    town = Town(lose=0)
    town.load(3.5 * TOKENS_PER_S, 60)
    health = slow(town, "a")
    assert health.state is Health.READY
    assert health.weight(town.now) == pytest.approx(0.2)
    assert town.fleet.health.transitions[Health.READY, Health.READY, Cause.GRAY] == 1


def test_load_of_other_models_is_nobody_elses():
    town = Town(2, lose=0)
    town.join("x", ("other",))
    town.join("y", ("other",))
    town.load(1.5 * TOKENS_PER_S, 60, model="other")
    assert not town.dispatcher.admission.can_spare({"x"}, town.now)
    assert town.dispatcher.admission.can_spare({"a"}, town.now)


# -- figures -----------------------------------------------------------------------------------


def test_what_is_left_is_told():
    town = Town()
    left = town.dispatcher.admission.left(town.now)
    assert left.kv_tokens == pytest.approx(0.95 * 3 * KV_TOKENS)
    town.load(2.0 * TOKENS_PER_S, 60)
    left = town.dispatcher.admission.left(town.now)
    assert left.prefill_tokens_per_s == pytest.approx(TOKENS_PER_S, rel=0.05)
    for name in "abcd":
        town.down(name)
    assert town.dispatcher.admission.left(town.now) is None
