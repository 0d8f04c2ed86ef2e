"""The oracle is told the truth."""

import pytest
from laboratory import STEADY, by_number, simulation_of, trace_of

from loadgen.contender import parse_contender
from loadgen.engine.profile import load_profile
from loadgen.simulate.oracle import Certain
from loadgen.simulate.results import row_of
from loadgen.simulate.scenario import Die, Slow
from loadgen.simulate.settings import ReplicaPlan
from loadgen.simulate.station import TOKENS_AT_ONCE
from policies.base import Choice
from policies.slo import Slo

SLO = Slo(ttft_s=2.0, ttft_s_per_token=0.00025, ttft_free_tokens=4096, tpot_s=0.06)


def told(trace, replicas=1, policy=None, **more):
    return simulation_of(
        trace, replicas, policy or parse_contender("oracle").load(), oracle=True, **more
    )


class Recorder:
    """Takes the first replica, and notes what it is shown."""

    def __init__(self):
        self.seen = []

    def choose(self, request, replicas, rng):
        forecast = replicas[0].forecast
        forecast.look()
        cached = dict(request.cached)
        queued = (forecast.queue_s, forecast.queue_tokens, forecast.kv_tokens())
        self.seen.append((cached, *queued, len(forecast.streams)))
        return Choice(replicas[0], "first")


def test_a_length_that_is_known():
    law = Certain(10)
    assert [law.alive(n) for n in (1, 9, 10)] == [1, 1, 0]
    assert [law.ends_within(4, n) for n in (5, 6)] == [0, 1]
    assert (law.outlook(4), law.outlook(12)) == ((1, 6), (0, 1))
    assert (law.remaining_tokens(4), law.remaining_tokens(10), law.mean_tokens) == (6, 1, 10)


def test_what_is_ahead_in_an_engine():
    # the steps end at 11, 21 and 31 ms; of 2,500 tokens 1,500 are left to the last two at 13 ms
    recorder = Recorder()
    sim = told(trace_of((0, 2500, 3), (0.012, 900, 2), (0.013, 5, 1)), 1, recorder)
    sim.run()
    _, second, third = recorder.seen
    assert second[1] == pytest.approx(0.009 + 0.010, abs=1e-6)
    assert second[2] == pytest.approx(0.9 * 1000 + 500)
    # the second one is still on its way
    assert third[1] == pytest.approx(0.008 + 0.010 + 0.010, abs=1e-6)
    assert third[2] == pytest.approx(0.8 * 1000 + 500 + 900)
    assert third[3] == pytest.approx(2500 + 900, abs=32)


def test_what_is_in_the_caches():
    recorder = Recorder()
    # the third one needs all of the cache but five blocks of 16 tokens
    trace = trace_of(
        (0, 1200, 2, (1, 2)), (1, 1200, 2, (1, 3)), (4, 4000, 2, (9,)), (6, 1200, 2, (1, 3))
    )
    sim = told(trace, plans=[ReplicaPlan(profile=STEADY, kv_tokens=4096)], policy=recorder)
    sim.run()
    assert [cached for cached, *_ in recorder.seen] == [{}, {"r0": 512}, {}, {"r0": 80}]


def test_streams_are_known_to_the_token():
    lengths = []

    class Looker:
        def choose(self, request, replicas, rng):
            streams = replicas[0].forecast.streams.values()
            lengths.append([s.survival.remaining_tokens(s.tokens) for s in streams])
            return Choice(replicas[0], "first")

    told(trace_of((0, 100, 50), (0.1505, 100, 7), (0.4505, 100, 3)), 1, Looker()).run()
    # 14 tokens have been streamed by 0.1505 s, and 44 by 0.4505 s; the router hears of some later
    assert lengths[0] == []
    assert 36 <= lengths[1][0] < 36 + TOKENS_AT_ONCE
    assert 6 <= lengths[2][0] < 6 + TOKENS_AT_ONCE


@pytest.mark.parametrize("slow", [1.0, 3.0])
@pytest.mark.parametrize("budget", [2048, 8192])
def test_predictions_come_true_where_nothing_comes_in_between(slow, budget):
    plan = ReplicaPlan(profile=load_profile("8b-h100"), speed=0.5, max_batched_tokens=budget)
    trace = trace_of(*((n * 8.01, 4000 * (n + 1), 400) for n in range(8)))
    sim = told(trace, plans=[plan], faults=[Slow(replica=0, at_s=0.0, factor=slow)], slo=SLO)
    sim.run()
    row = row_of(sim, policy="oracle", seed=0)
    assert row.ttft_error_p50 < 0.02
    assert row.ttft_error_p90 < 0.05


def test_an_engine_that_is_dead_has_no_truth_to_tell():
    faults = [Die(replica=0, at_s=0.5)]
    sim = told(trace_of((0, 10, 2), (0.501, 10, 2)), 1, faults=faults)
    sim.run()
    assert by_number(sim)[1].kind is not None


def test_the_oracle_has_the_options_of_the_policy_whose_rules_it_follows():
    contender = parse_contender("oracle+wait=false")
    assert contender.is_oracle
    assert contender.load().wait is False
    assert not parse_contender("least_estimated_completion").is_oracle
    sim = told(trace_of((0, 2500, 3), (0, 2500, 3)), 1, contender.load(), plans=None)
    sim.run()
    assert STEADY.max_batched_tokens == 1000
    assert row_of(sim, policy="oracle", seed=0).held_share == 0
