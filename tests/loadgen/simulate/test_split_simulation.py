"""Requests whose prompt is computed by one simulated replica and answered by another."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from laboratory import DELAYS, STEADY, by_number, run_for, trace_of

from loadgen.simulate.cli import command
from loadgen.simulate.results import row_of
from loadgen.simulate.scenario import Die, Hang, Resume, Return, Slow
from loadgen.simulate.settings import ReplicaPlan, Settings
from loadgen.simulate.simulation import Simulation
from loadgen.simulate.workload import plan
from policies.base import Choice, Role
from policies.slo import Slo
from policies.transfer import LATENCY_S

BYTES_PER_S = 25_000.0


class Pairs:
    """Splits whenever it can, evenly."""

    def choose(self, request, replicas, rng):
        prefills = [r for r in replicas if r.role is Role.PREFILL]
        decodes = [r for r in replicas if r.role is Role.DECODE]
        if prefills and decodes:
            prefill = min(prefills, key=lambda r: r.in_flight)
            return Choice(min(decodes, key=lambda r: r.in_flight), "split", prefill=prefill)
        return Choice(replicas[0], "whole")


def split_simulation(trace, roles="pd", *, faults=()):
    names = {"p": Role.PREFILL, "d": Role.DECODE, "b": Role.BOTH}
    settings = Settings(
        replicas=[ReplicaPlan(profile=STEADY, role=names[role]) for role in roles],
        slo=Slo(ttft_s=1.0, tpot_s=0.05),
        faults=faults,
        delays=DELAYS,
        link_bytes_per_s=BYTES_PER_S,
        timeout_s=60.0,
    )
    return Simulation(plan(trace, settings.slo), settings, Pairs())


def nothing_is_kept(sim):
    run_for(sim, 5.0)
    assert len(sim.transfers) == 0
    for station in sim.stations.values():
        assert not station.engine.pinned
        assert not station.engine.running
        assert not station.engine.waiting
        assert station.replica.in_flight == 0
        if station.replica.transfer is not None:
            assert station.replica.transfer.pending_tokens == 0


def test_a_split_request_by_hand():
    # to the prefill replica 1 ms, three steps, back 1 ms, to the other 1 ms, the transfer of 2,500
    # bytes, a step, back 1 ms; then a step for each token
    sim = split_simulation(trace_of((0.0, 2500, 3)))
    assert sim.run()
    (one,) = by_number(sim)
    assert one.ttft_s == pytest.approx(0.001 + 0.030 + 0.002 + LATENCY_S + 0.1 + 0.010 + 0.001)
    assert one.tpot_s == pytest.approx(0.010)
    assert one.replica == "r1"
    row = row_of(sim, policy="pairs", seed=0)
    assert row.split_share == 1.0
    assert row.prefill_busy == pytest.approx(0.03 / row.simulated_s)
    assert row.itl_p99_s == pytest.approx(0.010)
    assert row.fleet == "1 x steady for prefill + 1 x steady for decode"
    nothing_is_kept(sim)


def test_two_transfers_share_the_link_of_the_replica_that_gets_both():
    alone = split_simulation(trace_of((0.0, 2500, 3)), "ppd")
    alone.run()
    both = split_simulation(trace_of((0.0, 2500, 3), (0.0, 2500, 3)), "ppd")
    both.run()
    more_s = by_number(both)[0].ttft_s - by_number(alone)[0].ttft_s
    assert more_s == pytest.approx(0.1)
    nothing_is_kept(both)


def test_a_long_prompt_holds_up_no_stream_of_another_replica():
    streams = [(0.0, 100, 300)] * 5
    split = split_simulation(trace_of(*streams, (1.5, 30_000, 2)), "pd")
    split.run()
    assert row_of(split, policy="pairs", seed=0).itl_p999_s == pytest.approx(0.010)


def test_what_a_prefill_replica_makes_is_no_token_of_an_answer():
    slow = [Slow(replica=0, at_s=0.0, factor=30.0)]
    rows = [(number * 0.5, 1000, 3) for number in range(1, 9)]
    split = split_simulation(trace_of(*rows), "pd", faults=slow)
    split.run()
    assert row_of(split, policy="pairs", seed=0).itl_p999_s == pytest.approx(0.010)


@pytest.mark.parametrize("roles", ["ppd", "pdd", "ppdd"])
@pytest.mark.parametrize("at_s", [0.02, 0.05, 0.12, 0.2])
@pytest.mark.parametrize("replica", [0, 2])
def test_a_replica_that_dies_at_any_phase_leaves_nothing_behind(roles, at_s, replica):
    faults = [Die(replica=replica, at_s=at_s), Return(replica=replica, at_s=5.0)]
    trace = trace_of(*((0.03 * number, 2500, 4) for number in range(8)))
    sim = split_simulation(trace, roles, faults=faults)
    sim.run()
    assert len(sim.outcomes) == 8
    failed = [outcome for outcome in sim.outcomes if outcome.failure is not None]
    # only what had begun to answer there is lost: simulated streams are not continued
    assert all(outcome.first_token_s is not None for outcome in failed)
    nothing_is_kept(sim)


@hypothesis_settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(st.floats(0, 2), st.integers(1, 5000), st.integers(1, 50)),
        min_size=1,
        max_size=12,
    ),
    roles=st.sampled_from(["pd", "ppd", "pddb", "ppb"]),
    befalls=st.lists(st.tuples(st.integers(0, 1), st.floats(0, 2)), max_size=2),
)
def test_whatever_befalls_nothing_is_kept_in_the_end(rows, roles, befalls):
    faults = []
    for replica, at_s in befalls:
        faults += [Hang(replica=replica, at_s=at_s), Resume(replica=replica, at_s=at_s + 0.5)]
    sim = split_simulation(trace_of(*sorted(rows)), roles, faults=faults)
    sim.run()
    assert len(sim.outcomes) == len(rows)
    assert not sim.policy_errors
    nothing_is_kept(sim)


# -- the command -------------------------------------------------------------------------------

TRACE = "bimodal:n=40,rate=4"


def invoke(*arguments):
    return CliRunner().invoke(command, (TRACE, *arguments), prog_name="pointsman simulate")


def test_pools_by_option(tmp_path):
    out = tmp_path / "f.json"
    asked = ("--prefill", "1", "--decode", "2", "--policy", "prefill_decode+split=always")
    result = invoke(*asked, "--link-gbps", "100", "--out", str(out), "--jobs", "1")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())["results"]
    assert row["fleet"] == "1 x 8b-h100 for prefill + 2 x 8b-h100 for decode"
    assert row["split_share"] == 1.0
    assert 0 < row["decode_busy"] <= 1
    assert "busy" in result.output


def test_the_best_ratio_is_found_among_all_and_told(tmp_path):
    out = tmp_path / "f.json"
    asked = ("--replicas", "3", "--policy", "prefill_decode", "--find-capacity", "--find-ratio")
    result = invoke(*asked, "--tolerance", "0.3", "--out", str(out), "--jobs", "1")
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["results"]
    fleets = [row["fleet"] for row in rows]
    assert fleets[0] == "3 x 8b-h100"
    assert len(fleets) == 3
    best = max(rows, key=lambda row: row["capacity_rps"])
    told = " ".join(result.output.split())
    assert f"most requests are served by {best['fleet']}, {best['capacity_rps']:.2f}" in told


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--prefill", "1"), "--prefill and --decode go together"),
        (("--find-ratio",), "--find-ratio goes with --find-capacity"),
        (("--find-ratio", "--find-capacity", "--replicas", "1"), "at least two replicas"),
        (
            ("--find-ratio", "--find-capacity", "--prefill", "1", "--decode", "1"),
            "splits the fleet of --replicas itself",
        ),
        (
            ("--find-ratio", "--find-capacity", "--plot", "f.png"),
            "--plot does not go with --find-ratio",
        ),
    ],
)
def test_what_is_wrong_with_the_options_is_told(asked, told):
    result = invoke(*asked)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
