"""What a decision costs with the default policy: prompts of 16,000 tokens, 8 and 128 replicas.

The fleet is a simulated one under steady load, so forecasts change between two decisions as they
do in traffic: requests come, first tokens come, streams grow and end. The prefix index is another
one than the simulation's, and holds 2 million blocks.
"""

from __future__ import annotations

import time
from random import Random
from statistics import mean, median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loadgen.engine.profile import load_profile
from loadgen.simulate.settings import ReplicaPlan, Settings
from loadgen.simulate.simulation import Simulation
from loadgen.simulate.workload import Planned, Workload
from policies.base import RequestFacts
from policies.least_estimated_completion import LeastEstimatedCompletion
from policies.slo import Slo
from router.core.chooser import Chooser
from router.core.prefix_index import PrefixIndex
from router.core.request import Request
from tests.bench import prefix_index

RATE_RPS = 7.0
"""Of each replica; with the answers' mean length this makes about 30 streams there."""

OUTPUT_TOKENS = 200
LONG_SHARE = 0.1
WARM_S = 10.0
EVERY_S = 0.005
"""Between two decisions."""

ROUNDS = 5
DECISIONS = 100
"""Of a round."""

PROMPT_TOKENS = prefix_index.PROMPT_BLOCKS * prefix_index.BLOCK_TOKENS
SLO = Slo(ttft_s=2.0, ttft_s_per_token=0.00025, ttft_free_tokens=4096, tpot_s=0.06)


class Row(NamedTuple):
    """One figure."""

    replicas: int
    streams: float
    """Of a replica, on average."""
    prefills: float
    """Under way or waiting there, on average."""
    cpu_us: float
    """CPU for one decision: the median of some rounds."""
    goal_us: float


class Probe:
    """Asks for one decision after the other, while a simulation goes on.

    Args:
        simulation: What goes on.
        index: The prefix index to ask.
        prompts: Block keys of the prompts to be placed.
    """

    def __init__(
        self, simulation: Simulation, index: PrefixIndex, prompts: list[tuple[int, ...]]
    ) -> None:
        self.seconds: list[float] = []
        self.streams: list[int] = []
        self.prefills: list[int] = []
        self._simulation = simulation
        self._prompts = prompts
        policy, estimator = LeastEstimatedCompletion(), simulation.dispatcher.estimator
        self._chooser = Chooser(policy, Random(3), simulation, estimator, index)
        simulation.agenda.at(WARM_S, self._ask)

    def _ask(self) -> None:
        simulation = self._simulation
        now = simulation.agenda.now_s
        for station in simulation.stations.values():
            station.report_progress()
        facts = RequestFacts(
            model=None,
            prompt_tokens=PROMPT_TOKENS + 1,
            streamed=True,
            ttft_slo_s=SLO.ttft_limit_s(PROMPT_TOKENS),
            tpot_slo_s=SLO.tpot_s,
            prefix=self._prompts.pop(),
            prefix_block_tokens=prefix_index.BLOCK_TOKENS,
        )
        request = Request("probe", facts, now)
        candidates = simulation.fleet.candidates(None)
        start = time.process_time()
        self._chooser.ask(request, candidates, now)
        self.seconds.append(time.process_time() - start)
        forecasts = [replica.forecast for replica in candidates if replica.forecast]
        self.streams.append(sum(len(forecast.streams) for forecast in forecasts))
        self.prefills.append(sum(len(forecast.prefills) for forecast in forecasts))
        if len(self.seconds) < ROUNDS * DECISIONS:
            simulation.agenda.after(EVERY_S, self._ask)
        else:
            simulation.agenda.stop()


def run() -> list[Row]:
    """Measure."""
    return [measure(8, 60), measure(128, 400)]


def measure(replicas: int, goal_us: float) -> Row:
    """The figure for a fleet of so many replicas."""
    index = PrefixIndex(max_blocks=prefix_index.BLOCKS)
    names = [f"r{number}" for number in range(replicas)]
    for name in names:
        index.capacity(name, prefix_index.BLOCKS * prefix_index.BLOCK_TOKENS)
    held, _ = prefix_index.fill(index, names, Random(7))
    rng = Random(11)
    prompts = [rng.choice(held)[1] for _ in range(ROUNDS * DECISIONS)]
    plan = ReplicaPlan(profile=load_profile("8b-h100"))
    settings = Settings(replicas=[plan] * replicas, slo=SLO)
    simulation = Simulation(_workload(replicas), settings, LeastEstimatedCompletion())
    probe = Probe(simulation, index, prompts)
    simulation.run()
    rounds = [
        mean(probe.seconds[start : start + DECISIONS]) * 1e6
        for start in range(0, len(probe.seconds), DECISIONS)
    ]
    return Row(
        replicas,
        mean(probe.streams) / replicas,
        mean(probe.prefills) / replicas,
        median(rounds),
        goal_us,
    )


def _workload(replicas: int) -> Workload:
    rng = Random(5)
    rate_rps = RATE_RPS * replicas
    seconds = WARM_S + ROUNDS * DECISIONS * EVERY_S + 1
    arrival_s = 0.0
    requests: list[Planned] = []
    while arrival_s < seconds:
        arrival_s += rng.expovariate(rate_rps)
        tokens = PROMPT_TOKENS if rng.random() < LONG_SHARE else rng.randint(1000, 4000)
        facts = RequestFacts(
            prompt_tokens=tokens,
            streamed=True,
            ttft_slo_s=SLO.ttft_limit_s(tokens),
            tpot_slo_s=SLO.tpot_s,
        )
        output_tokens = 1 + int(rng.expovariate(1 / OUTPUT_TOKENS))
        requests.append(Planned(len(requests), arrival_s, tokens, output_tokens, (), facts))
    return Workload("steady", requests, arrival_s, None)


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    shown = Table(
        "replicas",
        "streams each",
        "prefills each",
        "CPU us",
        "goal us",
        title="decision, 16k prompts",
    )
    for row in rows:
        load = f"{row.streams:.1f}", f"{row.prefills:.1f}"
        shown.add_row(str(row.replicas), *load, f"{row.cpu_us:.1f}", f"{row.goal_us:.0f}")
    return shown


if __name__ == "__main__":
    Console().print(table(run()))
