"""Any sequence of events, against a model of the core small enough to be seen right.

The model knows nothing of how the core works: it holds what happened, and computes from it what
must be true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from policies.base import Choice, RequestFacts
from policies.least_kv import LeastKv
from policies.least_requests import LeastRequests
from policies.power_of_two import PowerOfTwo
from policies.round_robin import RoundRobin
from policies.session import Session
from router.core.actions import Abort, Cancel, Refuse, Send
from router.core.chooser import MAX_REASONS
from router.core.dispatcher import Dispatcher, Limits
from router.core.fleet import FleetState
from router.core.replica import Replica
from router.core.request import Failure, Request, State
from router.core.sample import Sample

NAMES = ["a", "b", "c", "d"]
MODELS = ["m1", "m2", "adapter"]
LIFETIME_S = 2.0
FLEET_EVENTS = ["health", "models", "poll", "tick", "poll_fails", "leave"]
REQUEST_EVENTS = ["arrive", "headers", "progress", "fail", "end", "client_goes"]
LISTINGS = st.sampled_from([{"m1"}, {"m1", "m2"}, set(), {"m2"}, {"m1", "adapter"}])
SAMPLES = st.builds(
    Sample,
    running=st.none() | st.integers(0, 50),
    waiting=st.none() | st.integers(0, 50),
    kv_occupancy=st.none() | st.floats(0, 1),
)
FACTS = st.builds(
    RequestFacts,
    model=st.sampled_from(["m1", None, "m1", "m2", "adapter", "unheard-of"]),
    prompt_tokens=st.integers(0, 40_000),
    session=st.sampled_from([None, "s1", "s2"]),
)


class Wild:
    """A policy that misbehaves in every way a plugin can, most of the time."""

    def __init__(self):
        self.misdeeds = 0

    def choose(self, request, replicas, rng):
        deed = rng.randrange(7)
        self.misdeeds += deed < 5
        if deed == 0:
            raise RuntimeError("no idea")
        if deed == 1:
            return Choice(Replica("elsewhere", "http://elsewhere"), "foreign")
        if deed == 2:
            return None
        if deed == 3:
            return Choice(replicas[0], ["no", "string"])
        if deed == 4:
            return Choice(len(replicas), "a number")
        return Choice(rng.choice(replicas), f"reason {rng.random()}" if deed == 5 else "fine")


@dataclass
class Known:
    """What the model knows of one replica."""

    replica: Replica
    healthy: bool = False
    models: frozenset[str] | None = None
    sample: Sample | None = None
    sampled_s: float | None = None
    believed: bool = False
    unseen: int = 0
    dispatched: int = 0
    failed: int = 0
    last: int = 0

    def serves(self, model):
        if not self.healthy or self.models is None:
            return False
        return model is None or not self.models or model in self.models


@dataclass(eq=False)
class Story:
    """What the model knows of one request."""

    request: Request
    sent_to: list[Known] = field(default_factory=list)
    tokens: int = 0
    relaying: bool = False
    ends: list[State] = field(default_factory=list)
    expected_end: State | None = None


class CoreMachine(RuleBasedStateMachine):
    """Drives a dispatcher through events in any order that a driver could bring them."""

    policies = (RoundRobin, LeastRequests, PowerOfTwo, LeastKv, Session)

    @initialize(
        policy=st.integers(0, 4),
        max_attempts=st.integers(1, 4),
        seed=st.integers(0, 2**32),
        ready=st.sampled_from([3, 2, 4, 1, 0]),
    )
    def start(self, policy, max_attempts, seed, ready):
        self.now = 100.0
        self.policy = self.policies[policy % len(self.policies)]()
        self.max_attempts = max_attempts
        self.fleet = FleetState(sample_lifetime_s=LIFETIME_S)
        self.dispatcher = Dispatcher(
            self.fleet, self.policy, Random(seed), self, Limits(max_attempts=max_attempts)
        )
        self.members: dict[str, Known] = {}
        self.everyone: list[Known] = []
        self.stories: list[Story] = []
        self.attempts = 0
        self.failures: dict[Failure, int] = {}
        self.policy_errors: list[Exception] = []
        for name in NAMES[:ready]:
            self.join(name)
            self.health(name, healthy=True)
            self.models(name, {"m1"})

    # -- the observer ---------------------------------------------------------------------------

    def request_ended(self, request, replica, now):
        story = self.story(request)
        story.ends.append(request.state)
        assert now == self.now
        assert replica is (story.sent_to[-1].replica if story.sent_to else None)

    def policy_failed(self, error):
        self.policy_errors.append(error)

    # -- events of the fleet --------------------------------------------------------------------
    # Two rules only, each of which draws what happens: left to itself, Hypothesis would switch
    # off some of a dozen rules in each run, and most runs would see no request at all.

    @rule(data=st.data())
    def something_happens_to_the_fleet(self, data):
        name = data.draw(st.sampled_from(NAMES), "name")
        event = data.draw(st.sampled_from(FLEET_EVENTS), "event")
        if event == "tick":
            self.tick(data.draw(st.sampled_from([0.25, 0.0, 1.0, 2.0, 2.5]), "seconds"))
        elif name not in self.members:
            self.join(name)
        elif event == "health":
            self.health(name, healthy=data.draw(st.sampled_from([True, True, False]), "healthy"))
        elif event == "models":
            self.models(name, data.draw(LISTINGS, "models"))
        elif event == "poll":
            self.poll(name, data.draw(SAMPLES, "sample"))
        elif event == "poll_fails":
            self.poll_fails(name)
        else:
            self.leave(name)

    def join(self, name):
        known = Known(self.fleet.add(name, f"http://{name}"))
        self.members[name] = known
        self.everyone.append(known)

    def leave(self, name):
        assert self.fleet.remove(name) is self.members.pop(name).replica

    def health(self, name, *, healthy):
        known = self.members[name]
        known.healthy = healthy
        reason = "fine" if healthy else "down"
        assert not self.dispatcher.health_seen(known.replica, healthy=healthy, reason=reason)
        assert known.replica.health_reason == reason

    def models(self, name, models):
        known = self.members[name]
        known.models = frozenset(models)
        assert not self.dispatcher.models_seen(known.replica, models)

    def poll(self, name, sample):
        known = self.members[name]
        known.sample, known.sampled_s, known.believed = sample, self.now, True
        known.unseen = 0
        assert not self.dispatcher.sampled(known.replica, sample, self.now)
        assert known.replica.poll_error is None

    def poll_fails(self, name):
        replica = self.members[name].replica
        assert not self.dispatcher.sample_failed(replica, "timed out")
        assert replica.poll_error == "timed out"

    def tick(self, seconds):
        self.now += seconds
        for known in self.members.values():
            if known.sampled_s is not None and known.sampled_s < self.now - LIFETIME_S:
                known.believed = False
        assert not self.dispatcher.tick(self.now)

    # -- events of requests ---------------------------------------------------------------------

    @rule(data=st.data())
    def something_happens_to_a_request(self, data):
        event = data.draw(st.sampled_from(REQUEST_EVENTS), "event")
        relaying = event in {"progress", "end"}
        subjects = self.stories if event == "client_goes" else self.running(relaying=relaying)
        if event == "arrive" or not subjects:
            self.arrive(data.draw(FACTS, "facts"))
            return
        story = data.draw(st.sampled_from(subjects), "request")
        if event == "headers":
            self.headers(story, data.draw(st.sampled_from([200, 400, 503]), "status"))
        elif event == "progress":
            self.progress(story, data.draw(st.integers(0, 300), "tokens"))
        elif event == "end":
            self.end(story)
        elif event == "fail":
            self.fail(story, data.draw(st.sampled_from(Failure), "failure"))
        else:
            self.client_goes(story)

    def arrive(self, facts):
        request = Request(f"r{len(self.stories)}", facts, self.now)
        story = Story(request)
        self.stories.append(story)
        offered = self.serving(facts.model)
        if not offered:
            story.expected_end = State.REFUSED
        (action,) = self.dispatcher.request_arrived(request, self.now)
        if offered:
            self.check_sent(story, action, offered)
        else:
            self.check_refused(facts.model, action)

    def headers(self, story, status):
        if not story.relaying:
            self.dispatcher.headers_received(story.request.attempt, status)
            story.relaying = True
            assert story.request.status == status

    def progress(self, story, tokens):
        self.dispatcher.progress(story.request.attempt, tokens, self.now)
        story.tokens += tokens
        assert story.request.first_byte_s <= self.now

    def end(self, story):
        story.expected_end = State.DONE
        assert not self.dispatcher.attempt_ended(story.request.attempt, self.now)

    def fail(self, story, failure):
        self.failures[failure] = self.failures.get(failure, 0) + 1
        story.sent_to[-1].failed += 1
        untried = [
            known for known in self.serving(story.request.facts.model) if known not in story.sent_to
        ]
        goes_on = not story.relaying and untried and len(story.sent_to) < self.max_attempts
        if not goes_on:
            story.expected_end = State.FAILED
        story.tokens = 0
        (action,) = self.dispatcher.attempt_failed(story.request.attempt, failure, self.now)
        if goes_on:
            self.check_sent(story, action, untried)
        elif story.relaying:
            assert isinstance(action, Abort)
        else:
            assert isinstance(action, Refuse)
            assert action.status == story.request.status == 502
            assert f"({len(story.sent_to)} tried)" in action.message

    def client_goes(self, story):
        attempt = story.request.attempt
        actions = self.dispatcher.client_gone(story.request, self.now)
        if story.expected_end is not None:
            assert not actions
            return
        story.expected_end = State.GONE
        (action,) = actions
        assert isinstance(action, Cancel)
        assert action.attempt is attempt

    # -- what must be true ----------------------------------------------------------------------

    @invariant()
    def each_request_reaches_one_end(self):
        for story in self.stories:
            expected = [] if story.expected_end is None else [story.expected_end]
            assert story.ends == expected
            assert story.request.state.ended == bool(expected)
            assert (story.request.attempt is None) == bool(expected)
        assert self.dispatcher.open == {story.request for story in self.running()}

    @invariant()
    def bookkeeping_is_the_sum_over_open_attempts(self):
        for known in self.everyone:
            here = [story for story in self.running() if story.sent_to[-1] is known]
            replica = known.replica
            assert replica.in_flight == len(here)
            assert replica.in_flight_prompt_tokens == sum(
                story.request.facts.prompt_tokens for story in here
            )
            assert replica.in_flight_output_tokens == sum(story.tokens for story in here)
            assert replica.unseen == known.unseen
            assert replica.dispatched_total == known.dispatched
            assert replica.failed_total == known.failed
            assert replica.last_dispatch == known.last

    @invariant()
    def attempts_are_bounded_and_never_twice_on_one_replica(self):
        for story in self.stories:
            assert len(story.sent_to) == story.request.attempts <= self.max_attempts
            assert story.request.tried == tuple(known.replica for known in story.sent_to)
            assert len(set(story.request.tried)) == len(story.sent_to)

    @invariant()
    def candidates_are_the_ready_replicas_that_serve_the_model(self):
        for model in (None, *MODELS, "unheard-of"):
            expected = [known.replica for known in self.serving(model)]
            assert list(self.fleet.candidates(model)) == expected
        ready = [known for known in self.members.values() if known.serves(None)]
        assert self.fleet.any_ready() == bool(ready)
        assert self.fleet.models() == frozenset().union(*(known.models for known in ready))
        assert self.fleet.uniform() == (len({known.models for known in ready}) <= 1)

    @invariant()
    def only_fresh_samples_are_believed(self):
        for known in self.everyone:
            seen = known.sample if known.believed else Sample()
            polled = (known.replica.running, known.replica.waiting, known.replica.kv_occupancy)
            assert polled == (seen.running, seen.waiting, seen.kv_occupancy)
            assert known.replica.sample is known.sample

    @invariant()
    def counters_add_up(self):
        counters = self.dispatcher.counters
        assert counters.arrived == len(self.stories)
        assert counters.attempts == self.attempts
        ended = [story.expected_end for story in self.stories if story.expected_end]
        assert counters.ended == {state: ended.count(state) for state in set(ended)}
        assert counters.arrived == len(ended) + len(self.dispatcher.open)
        assert counters.failed == self.failures
        assert len(self.dispatcher.chooser.reasons) <= MAX_REASONS + 1

    @invariant()
    def each_misdeed_of_the_policy_is_counted_once(self):
        misdeeds = getattr(self.policy, "misdeeds", 0)
        chooser = self.dispatcher.chooser
        assert misdeeds == chooser.errors == len(self.policy_errors)
        assert misdeeds == chooser.reasons.get("fallback", 0)

    @invariant()
    def the_snapshot_tells_the_same(self):
        snapshot = self.fleet.snapshot(self.now)
        assert [entry["name"] for entry in snapshot] == list(self.members)
        for entry, known in zip(snapshot, self.members.values(), strict=True):
            assert entry["ready"] == known.serves(None)
            assert entry["in_flight"] == known.replica.in_flight
            assert entry["models"] == (None if known.models is None else sorted(known.models))

    def teardown(self):
        for story in self.running() if hasattr(self, "stories") else ():
            story.expected_end = State.GONE
            self.dispatcher.client_gone(story.request, self.now)
        if hasattr(self, "stories"):
            self.bookkeeping_is_the_sum_over_open_attempts()
            self.each_request_reaches_one_end()
            assert not self.dispatcher.open
            for known in self.everyone:
                replica = known.replica
                assert replica.in_flight == 0
                assert replica.in_flight_prompt_tokens == replica.in_flight_output_tokens == 0

    # -- the model ------------------------------------------------------------------------------

    def story(self, request):
        return next(story for story in self.stories if story.request is request)

    def serving(self, model):
        return [known for known in self.members.values() if known.serves(model)]

    def running(self, *, relaying=False):
        return [
            story
            for story in self.stories
            if story.expected_end is None and (story.relaying or not relaying)
        ]

    def check_sent(self, story, action, offered):
        assert isinstance(action, Send)
        attempt = action.attempt
        assert attempt is story.request.attempt
        assert attempt.request is story.request
        assert attempt.started_s == self.now
        known = next(known for known in offered if known.replica is attempt.replica)
        self.attempts += 1
        story.sent_to.append(known)
        known.unseen += 1
        known.dispatched += 1
        known.last = self.attempts

    def check_refused(self, model, action):
        assert isinstance(action, Refuse)
        unheard_of = self.members and all(
            known.models and model not in known.models for known in self.members.values()
        )
        if model is not None and unheard_of:
            assert (action.status, action.code) == (404, "model_not_found")
            assert action.retry_after_s is None
        else:
            assert (action.status, action.code) == (503, "no_replica_ready")
            assert action.retry_after_s == 1


class WildMachine(CoreMachine):
    """The same under a policy that misbehaves: it must cost nothing but the choice."""

    policies = (Wild,)


TestCore = CoreMachine.TestCase
TestCoreUnderWildPolicy = WildMachine.TestCase
TestCore.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCoreUnderWildPolicy.settings = settings(TestCore.settings, max_examples=30)
