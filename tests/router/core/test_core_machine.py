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
from router.core.hold import HoldLimits
from router.core.replica import Replica
from router.core.request import Failure, Request, State
from router.core.retry import RetrySettings
from router.core.sample import Sample

NAMES = ["a", "b", "c", "d"]
MODELS = ["m1", "m2", "adapter"]
LIFETIME_S = 2.0
FLEET_EVENTS = ["health", "models", "poll", "tick", "poll_fails", "leave", "drain", "undrain"]
REQUEST_EVENTS = ["arrive", "headers", "progress", "fail", "end", "client_goes", "pause"]
SECONDS = [0.25, 0.0, 1.0, 2.5, 12.0, 40.0]
STATUSES = [200, 200, 400, 429, 500, 503]
OUTAGE_S = 20.0
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
    streamed=st.booleans(),
    deadline_s=st.sampled_from([None, None, 30.0]),
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

    draining: bool = False

    def serves(self, model):
        """Whether it can be given requests for the model at all, were it well."""
        if not self.healthy or self.models is None or self.draining:
            return False
        return model is None or not self.models or model in self.models


@dataclass(eq=False)
class Story:
    """What the model knows of one request."""

    request: Request
    sent_to: list[Known] = field(default_factory=list)
    attempt: object = None
    """The one that is open, as far as the driver was told."""
    tokens: int = 0
    relaying: bool = False
    """Whether the answer of this attempt is being relayed."""
    relayed: bool = False
    """Whether that of any was."""
    continued: int = 0
    unreached: int = 0
    """Attempts before the answer began that nobody was there to take."""
    unreached_continued: int = 0
    """Those that were to go on with the answer."""
    ends: list[State] = field(default_factory=list)
    expected_end: State | None = None


class CoreMachine(RuleBasedStateMachine):
    """Drives a dispatcher through events in any order that a driver could bring them."""

    policies = (RoundRobin, LeastRequests, PowerOfTwo, LeastKv, Session)

    @initialize(
        policy=st.integers(0, 4),
        max_attempts=st.integers(1, 4),
        outage_s=st.sampled_from([OUTAGE_S, OUTAGE_S, 0.0]),
        seed=st.integers(0, 2**32),
        ready=st.sampled_from([3, 2, 4, 1, 0]),
    )
    def start(self, policy, max_attempts, outage_s, seed, ready):
        self.now = 100.0
        self.policy = self.policies[policy % len(self.policies)]()
        self.max_attempts = max_attempts
        self.outage_s = outage_s
        self.fleet = FleetState(sample_lifetime_s=LIFETIME_S)
        retry = RetrySettings(max_attempts=max_attempts, max_continued=2)
        self.dispatcher = Dispatcher(
            self.fleet,
            self.policy,
            Random(seed),
            self,
            Limits(retry=retry),
            hold=HoldLimits(outage_s=outage_s, max_requests=6),
        )
        self.members: dict[str, Known] = {}
        self.everyone: list[Known] = []
        self.stories: list[Story] = []
        self.attempts = 0
        self.failures: dict[Failure, int] = {}
        self.turned_away = 0
        self.policy_errors: list[Exception] = []
        for name in NAMES[:ready]:
            self.join(name)
            self.models(name, {"m1"})
            self.health(name, healthy=True)

    # -- the observer ---------------------------------------------------------------------------

    def request_ended(self, request, replica, now):
        story = self.story(request)
        story.ends.append(request.state)
        story.expected_end = request.state
        story.attempt = None
        story.tokens = 0
        assert now == self.now
        assert replica is (story.sent_to[-1].replica if story.sent_to else None)

    def health_changed(self, change):
        assert change.at_s == self.now
        assert change.replica in {known.replica.name for known in self.everyone}

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
            self.tick(data.draw(st.sampled_from(SECONDS), "seconds"))
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
        elif event == "leave":
            self.leave(name)
        else:
            self.drain(name, on=event == "drain")

    def join(self, name):
        known = Known(self.fleet.add(name, f"http://{name}"))
        self.members[name] = known
        self.everyone.append(known)

    def leave(self, name):
        assert self.fleet.remove(name) is self.members.pop(name).replica

    def health(self, name, *, healthy):
        known = self.members[name]
        if healthy and not known.healthy:
            known.draining = False
        known.healthy = healthy
        reason = "fine" if healthy else "down"
        self.perform(
            self.dispatcher.health_seen(known.replica, self.now, healthy=healthy, reason=reason)
        )
        assert known.replica.health_reason == reason

    def models(self, name, models):
        known = self.members[name]
        known.models = frozenset(models)
        self.perform(self.dispatcher.models_seen(known.replica, models))

    def drain(self, name, *, on):
        self.members[name].draining = on
        if on:
            self.perform(self.dispatcher.drain(name, self.now, force=True))
        else:
            self.perform(self.dispatcher.undrain(name, self.now))

    def poll(self, name, sample):
        known = self.members[name]
        known.sample, known.sampled_s, known.believed = sample, self.now, True
        known.unseen = 0
        self.perform(self.dispatcher.sampled(known.replica, sample, self.now))
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
        self.perform(self.dispatcher.tick(self.now))

    # -- events of requests ---------------------------------------------------------------------

    @rule(data=st.data())
    def something_happens_to_a_request(self, data):
        event = data.draw(st.sampled_from(REQUEST_EVENTS), "event")
        if event == "client_goes":
            subjects = self.stories
        else:
            relaying = event in {"progress", "end"}
            subjects = [s for s in self.sent() if s.relaying or not relaying]
        if event == "arrive" or not subjects:
            self.arrive(data.draw(FACTS, "facts"))
            return
        story = data.draw(st.sampled_from(subjects), "request")
        if event == "headers":
            self.headers(story, data.draw(st.sampled_from(STATUSES), "status"))
        elif event == "progress":
            self.progress(story, data.draw(st.integers(0, 300), "tokens"))
        elif event == "end":
            self.end(story)
        elif event == "fail":
            failure = data.draw(st.sampled_from(Failure), "failure")
            self.fail(story, failure, continuable=data.draw(st.booleans(), "continuable"))
        elif event == "pause":
            paused = data.draw(st.booleans(), "paused")
            self.dispatcher.client_paused(story.attempt, self.now, paused=paused)
        else:
            self.client_goes(story)

    def arrive(self, facts):
        request = Request(f"r{len(self.stories)}", facts, self.now)
        story = Story(request)
        self.stories.append(story)
        unheard_of = self.unheard_of(facts.model)
        offered = self.serving(facts.model)
        refused = self.perform(self.dispatcher.request_arrived(request, self.now))
        if offered:
            assert story.attempt is not None
        elif unheard_of:
            assert [(r.status, r.code) for r in refused] == [(404, "model_not_found")]
        elif self.members and self.outage_s:
            assert story.attempt is None
            assert request.state is State.HELD or story.expected_end is State.REFUSED
        else:
            assert [(r.status, r.code) for r in refused] == [(503, "no_replica_ready")]
            assert refused[0].retry_after_s >= 1

    def headers(self, story, status):
        if story.relaying:
            return
        attempt, replica = story.attempt, story.attempt.replica
        actions = self.dispatcher.headers_received(attempt, status, self.now, 1.0)
        if story.request.attempt is attempt:
            assert not actions
            story.relaying = story.relayed = True
            assert story.request.state is State.RELAYING
            return
        assert status in {400, 429, 500, 503}
        assert status != 400 or story.relayed
        self.turned_away += 1
        self.dropped(story)
        self.perform(actions)
        assert story.attempt is None or story.attempt.replica is not replica

    def progress(self, story, tokens):
        story.tokens += tokens
        self.perform(self.dispatcher.progress(story.attempt, tokens, self.now))
        assert story.request.first_byte_s <= self.now

    def end(self, story):
        self.perform(self.dispatcher.attempt_ended(story.attempt, self.now))
        assert story.expected_end is State.DONE

    def fail(self, story, failure, *, continuable):
        story.request.continuable = continuable
        self.count_failure(story, failure)
        if failure is Failure.CONNECT:
            story.unreached += not story.relayed
            story.unreached_continued += story.relayed
        attempt = story.attempt
        self.dropped(story)
        self.perform(self.dispatcher.attempt_failed(attempt, failure, self.now))
        if story.relayed and not continuable:
            assert story.expected_end is State.FAILED

    def client_goes(self, story):
        attempt, ended = story.attempt, story.expected_end
        actions = self.dispatcher.client_gone(story.request, self.now)
        if ended is not None or attempt is None:
            assert not actions
        else:
            cancel, *others = actions
            assert isinstance(cancel, Cancel)
            assert cancel.attempt is attempt
            self.perform(others)  # who waited may find room now
        assert story.expected_end is (ended or State.GONE)

    # -- the driver -----------------------------------------------------------------------------

    def perform(self, actions):
        """Do what is asked for; returns the refusals."""
        refused = []
        for action in actions:
            if isinstance(action, Send):
                self.check_sent(action)
            elif isinstance(action, Cancel):
                story = self.story(action.attempt.request)
                assert story.sent_to[-1].replica is action.attempt.replica
                self.count_failure(story, Failure.STALL)
                self.dropped(story)
            elif isinstance(action, Refuse):
                story = self.story(action.request)
                assert not story.relayed
                assert action.status == action.request.status
                assert story.expected_end in {State.REFUSED, State.FAILED}
                refused.append(action)
            else:
                assert isinstance(action, Abort)
                story = self.story(action.request)
                assert story.relayed
                assert story.expected_end is State.FAILED
        return refused

    def check_sent(self, action):
        attempt = action.attempt
        story = self.story(attempt.request)
        assert story.attempt is None
        assert attempt is story.request.attempt
        assert attempt.started_s == self.now
        known = next(known for known in self.members.values() if known.replica is attempt.replica)
        assert known.serves(story.request.facts.model)
        assert action.continues == story.relayed
        story.attempt = attempt
        story.continued += action.continues
        self.attempts += 1
        story.sent_to.append(known)
        known.unseen += 1
        known.dispatched += 1
        known.last = self.attempts

    def count_failure(self, story, failure):
        self.failures[failure] = self.failures.get(failure, 0) + 1
        story.sent_to[-1].failed += 1

    def dropped(self, story):
        story.attempt, story.relaying, story.tokens = None, False, 0

    # -- what must be true ----------------------------------------------------------------------

    @invariant()
    def each_request_reaches_one_end(self):
        for story in self.stories:
            request = story.request
            expected = [] if story.expected_end is None else [story.expected_end]
            assert story.ends == expected
            assert request.state.ended == bool(expected)
            assert request.attempt is story.attempt
            waits = not expected and story.attempt is None
            assert waits == (request.queue is not None) == (request.state is State.HELD)
        assert self.dispatcher.open == {story.request for story in self.running()}

    @invariant()
    def what_waits_is_bounded(self):
        waiting = self.dispatcher.waiting
        waits = [story for story in self.running() if story.attempt is None]
        assert len(waiting) == len(waits) <= max(6, sum(story.relayed for story in waits))
        assert waiting.tokens == sum(story.request.facts.prompt_tokens for story in waits)
        assert self.outage_s or not waits

    @invariant()
    def bookkeeping_is_the_sum_over_open_attempts(self):
        sent = self.sent()
        for known in self.everyone:
            here = [story for story in sent if story.sent_to[-1] is known]
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
        retries = sum(story.attempt.is_retry for story in sent)
        assert self.dispatcher.budget.retrying == retries

    @invariant()
    def attempts_are_bounded(self):
        for story in self.stories:
            request = story.request
            assert len(story.sent_to) == request.attempts
            first = request.attempts - story.continued
            assert first - story.unreached <= self.max_attempts
            assert story.continued == request.continued
            assert story.continued - story.unreached_continued <= 2
            assert request.tried == tuple(known.replica for known in story.sent_to)

    @invariant()
    def candidates_are_replicas_that_can_serve_the_model(self):
        for model in (None, *MODELS, "unheard-of"):
            able = [known.replica for known in self.serving(model)]
            offered = list(self.fleet.candidates(model))
            assert bool(offered) == bool(able)
            assert [replica for replica in able if replica in offered] == offered
        ready = [k for k in self.members.values() if k.healthy and k.models is not None]
        assert self.fleet.any_ready() == any(not known.draining for known in ready)
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
        assert sum(counters.turned_away.values()) == self.turned_away
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
            assert entry["ready"] == (known.healthy and known.models is not None)
            assert entry["in_flight"] == known.replica.in_flight
            assert entry["models"] == (None if known.models is None else sorted(known.models))

    def teardown(self):
        for story in self.running() if hasattr(self, "stories") else ():
            self.client_goes(story)
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

    def running(self):
        return [story for story in self.stories if story.expected_end is None]

    def sent(self):
        return [story for story in self.running() if story.attempt is not None]

    def unheard_of(self, model):
        replicas = self.members.values()
        if model is None or not replicas:
            return False
        if any(k.models is not None and (not k.models or model in k.models) for k in replicas):
            return False
        if all(known.models is not None for known in replicas):
            return True
        return any(k.healthy and k.models is not None and not k.draining for k in replicas)


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
