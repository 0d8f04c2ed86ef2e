"""Small simulations whose every step can be counted."""

from __future__ import annotations

from loadgen.engine.profile import AttentionCost, CpuCost, LinearCost, Profile
from loadgen.simulate.settings import Delays, ReplicaPlan, Settings
from loadgen.simulate.simulation import Simulation
from loadgen.simulate.workload import plan
from loadgen.trace.request import Trace, TraceRequest
from policies.registry import load
from policies.slo import Slo

STEADY = Profile(
    name="steady",
    model="m",
    linear=LinearCost(floor_ms=10, a_ms=0, b_ms_per_1000_tokens=1e-9),
    attention=AttentionCost(prefill_ms_per_token_pair=0, decode_ms_per_context_token=0),
    cpu=CpuCost(step_ms=0, sequence_ms=0),
    kv_bytes_per_token=1,
    kv_tokens=100_000,
    max_batched_tokens=1000,
    max_sequences=64,
    max_model_tokens=50_000,
    load_s=0,
)
"""Each step takes 10 ms, whatever is in it."""

DELAYS = Delays(network_s=0.001, poll_answer_s=0.0)


def trace_of(*rows):
    """A trace of (arrival, prompt, output) or (arrival, prompt, output, hash_ids)."""
    requests = [
        TraceRequest(
            arrival_s=row[0], prompt_tokens=row[1], output_tokens=row[2], hash_ids=(*row, ())[3]
        )
        for row in rows
    ]
    return Trace.of("made", requests)


def simulation_of(trace, replicas=1, policy="round_robin", *, plans=None, **more):
    made = load(policy, {}) if isinstance(policy, str) else policy
    settings = {
        "slo": more.pop("slo", Slo(ttft_s=1.0, tpot_s=0.05)),
        "faults": more.pop("faults", ()),
        "delays": more.pop("delays", DELAYS),
        "timeout_s": more.pop("timeout_s", 600.0),
        "late_gap_s": more.pop("late_gap_s", None),
    }
    plans = plans or [ReplicaPlan(profile=STEADY)] * replicas
    workload = plan(trace, settings["slo"])
    return Simulation(workload, Settings(replicas=plans, **settings), made, **more)


def run_for(simulation, seconds):
    """Go on after the last end, to let what is on its way arrive."""
    simulation.agenda.after(seconds, simulation.agenda.stop)
    simulation.agenda.run()


def by_number(simulation):
    return sorted(simulation.outcomes, key=lambda outcome: outcome.number)
