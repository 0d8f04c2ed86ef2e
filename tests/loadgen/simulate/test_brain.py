"""How the estimating policy behaves, in fleets whose engines are known."""

from __future__ import annotations

from statistics import median, quantiles

import pytest
from laboratory import by_number, simulation_of

from loadgen.engine.profile import load_profile
from loadgen.simulate.scenario import Metrics, Slow
from loadgen.simulate.settings import Delays, ReplicaPlan
from loadgen.trace.bimodal import Bimodal, make_trace
from policies.slo import Slo

POLICY = "least_estimated_completion"
SLO = Slo(ttft_s=2.0, tpot_s=0.06)
PLAN = ReplicaPlan(profile=load_profile("8b-h100"))


def run(policy=POLICY, *, rate, n, replicas=4, **more):
    sim = simulation_of(
        make_trace(Bimodal(rate=rate, n=n, seed=3)),
        policy=policy,
        plans=[PLAN] * replicas,
        slo=SLO,
        delays=Delays(),
        **more,
    )
    assert sim.run()
    return sim


def median_ttft_s(sim):
    return median(outcome.ttft_s for outcome in sim.outcomes)


def test_first_tokens_are_foreseen_from_a_cold_start():
    sim = run(rate=6, n=700)
    seen = sim.dispatcher.estimator.ttft
    assert seen.count >= 650
    assert seen.quantile(0.5) <= 0.15
    assert seen.quantile(0.9) <= 0.40


def test_at_low_load_nothing_waits_and_first_tokens_come_no_later():
    estimating, taking_turns = run(rate=0.5, n=200), run("round_robin", rate=0.5, n=200)
    assert estimating.dispatcher.counters.held == 0
    assert median_ttft_s(estimating) <= 1.02 * median_ttft_s(taking_turns)


def test_one_that_turns_three_times_slower_gets_less_within_twenty_of_its_requests():
    slow_s = 40.0
    sim = run(rate=5, n=800, faults=[Slow(replica=0, at_s=slow_s, factor=3.0)])
    sent = [o for o in by_number(sim) if o.sent_s > slow_s]
    slow = next(name for name in {o.replica for o in sent} if name.endswith("0"))
    places = [index for index, o in enumerate(sent) if o.replica == slow]
    noticed = places[20] if len(places) > 20 else 0
    after = sent[noticed:]
    share = sum(o.replica == slow for o in after) / len(after)
    # its fair share is 1/3 of a part of 3 1/3
    assert share <= 1.3 * 0.1


def test_nobody_starves_when_there_is_too_much_for_all():
    sim = run(rate=14, n=900, replicas=4)
    long = [o for o in sim.outcomes if o.prompt_tokens > 20_000]
    waits = [o.ttft_s for o in long]
    assert len(waits) > 30
    assert None not in waits
    assert max(waits) <= 3 * quantiles(waits, n=100)[98]


@pytest.mark.parametrize("how", ["error", "frozen"])
def test_without_metrics_own_bookkeeping_suffices(how):
    faults = [Metrics(replica=place, at_s=2.0, how=how) for place in range(4)]
    blind, seeing = run(rate=8, n=400, faults=faults), run(rate=8, n=400)
    assert blind.goodput >= seeing.goodput - 0.03
