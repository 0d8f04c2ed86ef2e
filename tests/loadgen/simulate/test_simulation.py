"""One simulation: by hand, by laws, and with what goes wrong."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from laboratory import STEADY, by_number, run_for, simulation_of, trace_of

from loadgen.replay.outcome import Failure
from loadgen.simulate.results import row_of
from loadgen.simulate.scenario import Die, Hang, Metrics, Resume, Return, Slow
from loadgen.simulate.settings import Delays, ReplicaPlan
from loadgen.simulate.station import TOKENS_AT_ONCE
from policies.base import Choice
from policies.slo import Slo
from router.core.admission import HeadroomSettings
from router.core.request import State


class Recorder:
    """Takes the first replica, and notes what it is shown of it."""

    def __init__(self):
        self.seen = []

    def choose(self, request, replicas, rng):
        first = replicas[0]
        self.seen.append((first.running, first.unseen, first.in_flight_output_tokens))
        return Choice(first, "first")


def test_two_requests_by_hand():
    # A is at the engine at 1 ms and in the steps 1-11, 11-21, 21-31; B comes there at 6 ms and is
    # in 11-21 and 21-31. The router hears 1 ms later.
    sim = simulation_of(trace_of((0.0, 100, 3), (0.005, 100, 2)))
    assert sim.run()
    a, b = by_number(sim)
    assert (a.ttft_s, a.tpot_s, a.e2e_s) == pytest.approx((0.012, 0.010, 0.032))
    assert (b.ttft_s, b.tpot_s, b.e2e_s) == pytest.approx((0.017, 0.010, 0.027))
    row = row_of(sim, policy="round_robin", seed=0)
    assert row.itl_p99_s == pytest.approx(0.010)
    assert (row.goodput, row.failed, row.requests) == (1.0, 0, 2)
    assert row.rate_rps == pytest.approx(2 / 0.005)


def test_a_long_prompt_holds_up_whoever_shares_its_engine():
    # 2,500 tokens in steps of at most 1,000, 999 of which are left beside A's decode
    sim = simulation_of(trace_of((0.0, 100, 9), (0.005, 2500, 1)))
    sim.run()
    assert by_number(sim)[1].ttft_s == pytest.approx(0.037)


@pytest.mark.parametrize(("lose", "refused"), [(0, False), (1, True)])
def test_a_fleet_that_is_to_lose_a_replica_lets_less_in(lose, refused):
    # 150 answers of 100 steps at once take 150 x 1,100 of 200,000 tokens of KV; one of the two
    # replicas has 95,000 to give
    sim = simulation_of(trace_of(*((number / 1000, 1000, 100) for number in range(150))), 2)
    sim.dispatcher.admission.settings = HeadroomSettings(lose=lose)
    sim.run()
    statuses = [outcome.status for outcome in sim.outcomes]
    assert set(statuses) == ({200, 429} if refused else {200})
    if refused:
        assert 60 < statuses.count(200) < 100


def test_arrivals_come_faster_by_the_rate_scale():
    sim = simulation_of(trace_of((0.0, 10, 1), (8.0, 10, 1)), rate_scale=4)
    sim.run()
    assert by_number(sim)[1].sent_s == 2.0
    assert row_of(sim, policy="p", seed=0).rate_rps == pytest.approx(1.0)


def test_equal_leading_blocks_are_found_in_the_cache():
    sim = simulation_of(trace_of((0, 1200, 2, (1, 2, 3)), (1, 1200, 2, (1, 2, 9)), (2, 600, 2)))
    sim.run()
    assert [o.cached_tokens for o in by_number(sim)] == [0, 1024, 0]
    assert row_of(sim, policy="p", seed=0).prefix_hit_share == pytest.approx(1024 / 3000)


def test_an_id_behind_another_prefix_is_another_block():
    sim = simulation_of(trace_of((0, 1200, 2, (1, 2)), (1, 1200, 2, (7, 2))))
    sim.run()
    assert by_number(sim)[1].cached_tokens == 0


def test_the_policy_sees_tokens_several_at_a_time():
    recorder = Recorder()
    sim = simulation_of(trace_of((0.0, 10, 200), (1.0005, 10, 1), (1.5005, 10, 1)), 1, recorder)
    sim.run()
    # the steps end at 0.011, 0.021 …, each with one token
    before, second, third = [tokens for _, _, tokens in recorder.seen]
    assert before == 0
    assert 99 - TOKENS_AT_ONCE < second <= 99
    assert 149 - TOKENS_AT_ONCE < third <= 149


def test_polls_are_late_by_their_way():
    recorder = Recorder()
    delays = Delays(network_s=0.1, poll_interval_s=0.2, poll_jitter=0.0, poll_answer_s=0.3)
    arrivals = [(0.01 * n, 10, 500) for n in range(200)]
    sim = simulation_of(trace_of(*arrivals), 1, recorder, delays=delays)
    sim.run()
    running = [seen for seen, _, _ in recorder.seen]
    first = next(n for n, seen in enumerate(running) if seen)
    # the look begins within 0.2 s, is read 0.1 s and believed 0.5 s later; what it shows was sent
    # before it began
    assert 50 <= first <= 71
    assert running[first] == pytest.approx(first - 50, abs=1)
    assert recorder.seen[first][1] == pytest.approx(50, abs=1)


def test_what_never_fits_is_refused_by_the_replica():
    sim = simulation_of(trace_of((0, 49_999, 2), (0, 10, 2)))
    sim.run()
    refused, served = by_number(sim)
    assert (refused.kind, served.kind) == ("status 400", None)


def test_a_client_that_waits_too_long_leaves_and_frees_its_blocks():
    sim = simulation_of(trace_of((0, 100, 400), (0, 100, 2)), timeout_s=1.0)
    sim.run()
    assert [o.failure for o in by_number(sim)] == [Failure.TIMEOUT, None]
    run_for(sim, 1.0)
    (station,) = sim.stations.values()
    assert not station.engine.running
    assert station.engine.kv_blocks_in_use == 0


def test_a_death_ends_streams_and_sends_the_rest_elsewhere():
    # at 0.105 s the first is streaming, and the second is in prefill on the same replica
    trace = trace_of((0, 10, 100), (0.09, 5000, 5))
    sim = simulation_of(trace, 2, Recorder(), faults=[Die(replica=0, at_s=0.105)])
    sim.run()
    first, second = by_number(sim)
    assert (first.kind, first.replica) == ("truncated", "r0")
    assert (second.kind, second.replica) == (None, "r1")
    assert sim.dispatcher.counters.attempts == 3


def test_a_dead_replica_is_noticed_and_a_returned_one_is_cold():
    ask = (1200, 2, (1, 2))
    trace = trace_of(*((float(at), *ask) for at in (0, 1, 3, 5, 6)))
    faults = [Die(replica=0, at_s=2.0), Return(replica=0, at_s=4.0)]
    sim = simulation_of(trace, 1, faults=faults)
    sim.run()
    outcomes = by_number(sim)
    assert [o.kind for o in outcomes] == [None] * 5
    assert [o.cached_tokens for o in outcomes] == [0, 1024, 0, 1024, 1024]
    assert 1.0 < outcomes[2].ttft_s < 2.0  # it waited in the router


def test_before_a_death_is_noticed_connections_are_refused():
    delays = Delays(network_s=0.001, poll_interval_s=10.0)
    faults = [Die(replica=0, at_s=0.5)]
    sim = simulation_of(trace_of((0, 9, 1), (0.501, 9, 1)), 1, faults=faults, delays=delays)
    sim.run()
    assert by_number(sim)[1].kind == "status 502"
    # nobody knows that it is dead, so there is nothing to wait for
    assert 1.0 < by_number(sim)[1].e2e_s < 1.5


def test_a_slow_replica_takes_longer_by_its_factor():
    faults = [Slow(replica=0, at_s=1.0, factor=3), Slow(replica=0, at_s=3.0, factor=1)]
    trace = trace_of((0, 9, 11), (2, 9, 11), (4, 9, 11))
    sim = simulation_of(trace, plans=[ReplicaPlan(profile=STEADY, speed=0.5)], faults=faults)
    sim.run()
    assert [o.tpot_s for o in by_number(sim)] == pytest.approx([0.02, 0.06, 0.02])


def test_a_replica_that_hangs_is_noticed_by_its_silence_and_goes_on_where_it_stood():
    # A has 11 tokens by 0.111 s, and hangs from 0.115 s to 10 s
    faults = [Hang(replica=0, at_s=0.115), Resume(replica=0, at_s=10.0)]
    trace = trace_of((0, 10, 20), (1, 10, 2), (6, 10, 2), (12, 10, 2))
    delays = Delays(network_s=0.001, poll_timeout_s=2.0)
    sim = simulation_of(trace, 1, faults=faults, delays=delays)
    sim.run()
    a, b, c, d = by_number(sim)
    assert a.ended_s == pytest.approx(0.202 + 9.885)
    assert b.ttft_s == pytest.approx(9.0, abs=0.02)  # sent before anybody knew
    assert c.ttft_s == pytest.approx(4.0, abs=0.5)  # it waited in the router
    assert d.kind is None
    (station,) = sim.stations.values()
    assert not station.silent
    assert sim.gaps.quantile(1.0) == pytest.approx(9.885, abs=0.001)


def test_a_hung_engine_whose_health_is_fine_goes_unnoticed():
    faults = [Hang(replica=0, at_s=0.5, health=True)]
    trace = trace_of((1, 10, 2), (20, 10, 2), (0, 10, 2))
    sim = simulation_of(trace, 1, faults=faults, timeout_s=5.0)
    sim.run()
    assert [o.failure for o in by_number(sim)] == [None, Failure.TIMEOUT, Failure.TIMEOUT]


def test_a_hung_replica_may_die_and_return():
    faults = [
        Hang(replica=0, at_s=0.5),
        Die(replica=0, at_s=1.5),
        Return(replica=0, at_s=2.0),
    ]
    sim = simulation_of(trace_of((0, 10, 2), (1, 10, 2), (4, 10, 2)), 1, faults=faults)
    sim.run()
    lost, after = by_number(sim)[1:]
    assert (lost.kind, after.kind) == (None, None)
    assert 1.0 < lost.ttft_s < 2.0  # it was sent again


@pytest.mark.parametrize(("how", "seen"), [("ok", 2), ("frozen", 0), ("error", None)])
def test_what_a_policy_sees_of_a_replica_whose_metrics_ail(how, seen):
    recorder = Recorder()
    faults = [Metrics(replica=0, at_s=0.0, how="frozen"), Metrics(replica=0, at_s=0.1, how=how)]
    trace = trace_of((0.2, 10, 1000), (0.3, 10, 1000), (5.0, 10, 1))
    sim = simulation_of(trace, 1, recorder, faults=faults)
    sim.run()
    assert recorder.seen[-1][0] == seen


def test_a_search_stops_when_enough_have_missed():
    trace = trace_of(*((float(n), 10, 10) for n in range(100)))
    sim = simulation_of(trace, slo=Slo(tpot_s=0.001), most_misses=4)
    assert not sim.run()
    assert len(sim.outcomes) == 5


def test_the_policys_mistakes_are_counted():
    class Broken:
        def choose(self, request, replicas, rng):
            raise RuntimeError

    sim = simulation_of(trace_of((0, 10, 2)), 2, Broken())
    sim.run()
    assert row_of(sim, policy="broken", seed=0).policy_errors == 1


def test_least_requests_beats_round_robin_where_turns_meet_one_replica():
    # every other request is long, so in turn all long ones go to one of the two: 250 ms of work
    # come to it every 200 ms
    rows = [(n * 0.1, 25_000 if n % 2 else 100, 2) for n in range(100)]
    goodput = {}
    for policy in ("round_robin", "least_requests"):
        sim = simulation_of(trace_of(*rows), 2, policy, slo=Slo(ttft_s=0.5))
        sim.run()
        goodput[policy] = row_of(sim, policy=policy, seed=0).goodput
    assert goodput["least_requests"] > 0.9 > goodput["round_robin"]


class TwoAtATime:
    """Lets no replica have more than two requests; the others wait in the router."""

    def __init__(self):
        self.most = 0

    def choose(self, request, replicas, rng):
        least = min(replicas, key=lambda replica: replica.in_flight)
        self.most = max(self.most, *(replica.in_flight for replica in replicas))
        return Choice(least, "least", hold=least.in_flight >= 2)


def test_requests_that_wait_in_the_router_are_sent_when_something_ends():
    rows = [(0.02 * n, 50, 20 if n % 5 else 200) for n in range(100)]
    policy = TwoAtATime()
    sim = simulation_of(trace_of(*rows), 2, policy, timeout_s=1.5)
    sim.run()
    assert policy.most == 2
    assert {o.failure for o in sim.outcomes} == {None, Failure.TIMEOUT}
    assert_all_ended(sim, 100)
    row = row_of(sim, policy="two", seed=0)
    assert 0.5 < row.held_share < 1
    assert 1.0 < row.largest_hold_s <= 1.5  # then clients leave
    successes = [o for o in sim.outcomes if o.failure is None]
    assert row.ttft_max_s == max(o.ttft_s for o in successes)
    assert row.long_ttft_max_s is None


def assert_all_ended(sim, requests):
    assert sorted(o.number for o in sim.outcomes) == list(range(requests))
    assert not sim.dispatcher.open
    assert sum(sim.dispatcher.counters.ended.values()) == requests
    for replica in sim.fleet.replicas.values():
        assert replica.in_flight == 0
        assert replica.in_flight_prompt_tokens == 0
        assert replica.in_flight_output_tokens == 0


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 0.2),  # gap to the one before
        st.integers(1, 3000),  # prompt
        st.integers(1, 80),  # output
        st.integers(0, 3),  # shared blocks
    ),
    min_size=1,
    max_size=40,
)
FAULTS = st.lists(
    st.tuples(st.sampled_from([Die, Return, Slow]), st.integers(0, 2), st.floats(0, 3)),
    max_size=6,
)


def faults_of(drawn):
    """Those that make sense: only the living die, only the dead return."""
    dead, kept = set(), []
    for kind, replica, at_s in sorted(drawn, key=lambda each: each[2]):
        if kind is Slow:
            kept.append(Slow(replica=replica, at_s=at_s, factor=1 + at_s))
        elif (kind is Return) == (replica in dead):
            kept.append(kind(replica=replica, at_s=at_s))
            (dead.discard if kind is Return else dead.add)(replica)
    return kept


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    REQUESTS,
    FAULTS,
    st.sampled_from(["round_robin", "least_requests", "least_kv", "power_of_two"]),
    st.sampled_from([0.3, 600.0]),
)
def test_every_request_ends_once_and_nothing_is_left(requests, drawn, policy, timeout_s):
    now, rows = 0.0, []
    for gap, prompt, output, shared in requests:
        now += gap
        rows.append((now, prompt, output, tuple(range(min(shared, prompt // 512)))))
    # a KV cache that holds little more than one request, so that sequences give way
    plans = [ReplicaPlan(profile=STEADY, kv_tokens=4096)] * 3
    faults = faults_of(drawn)
    trace = trace_of(*rows)
    sim = simulation_of(trace, 3, policy, plans=plans, faults=faults, timeout_s=timeout_s)
    sim.run()
    assert_all_ended(sim, len(requests))
    ended = sim.dispatcher.counters.ended
    assert ended.get(State.DONE, 0) == sum(o.failure is None for o in sim.outcomes)
    run_for(sim, 2.0)
    for station in sim.stations.values():
        if station.engine is not None:
            assert not station.engine.running
            assert not station.engine.waiting
            assert station.engine.kv_blocks_in_use == 0
    assert_all_ended(sim, len(requests))
