"""Either replica of a split request is killed at any moment, and its client sees one answer.

CHAOS_SPLIT_RUNS sets how many times for each dialect (`make chaos-split`: 40), CHAOS_SEED which.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import asynccontextmanager

import aiohttp
import pytest

from loadgen.trial.processes import Processes
from tests.chaos.fleet import ChaosReplica, Size
from tests.chaos.stream import CHAT, COMPLETIONS, Ending, ask, connect, unbroken
from tests.fakes.serve_process import ServeProcess, eventually

RUNS = int(os.environ.get("CHAOS_SPLIT_RUNS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120 + 30 * RUNS)]

ENGINES = {"nixl": "vllm", "mooncake": "vllm", "p2p": "vllm", "sglang": "sglang", "trtllm": "vllm"}
SIZE = Size(replicas=4, slots=16, speed=0.25, load_s=0.0)
PHASES = ("before", "prefill", "transfer", "decode")
TOKENS, WORDS = 40, 2400
LEASE_S = 1.5
FREE_WITHIN_S = 2.0
DEADLINE_S = 60.0


class SplitStage:
    """Two prefill and two decode replicas, and the router before them."""

    def __init__(self, dialect, sides, router, session):
        self.dialect, self.sides, self.router, self.session = dialect, sides, router, session

    @property
    def fleet(self):
        return [replica for side in self.sides.values() for replica in side]

    async def kept(self, replica):
        """What a replica shows; nothing of one that is dead."""
        try:
            async with self.session.get(f"{replica.url}/kv") as page:
                return await page.json()
        except aiohttp.ClientError:
            return {"kept": [], "pinned": 0, "running": 0, "fetching": 0}

    async def working(self, side, phase):
        """A replica of that side that has something to do with a request in that phase."""
        shown = {role: [await self.kept(r) for r in side] for role, side in self.sides.items()}
        at = {
            "prefill": [kept["running"] for kept in shown["prefill"]],
            "decode": [kept["running"] for kept in shown["decode"]],
        }
        busy = at[side]
        if phase == "transfer":
            moving = any(kept["held"] for page in shown["prefill"] for kept in page["kept"])
            if not moving:
                return None
            busy = [page["pinned"] or page["fetching"] for page in shown[side]]
        elif not any(at[phase]):
            return None
        elif side != phase:  # the other one is known by what waits or is kept there
            busy = [page["pinned"] or page["fetching"] for page in shown[side]]
            if not any(busy):
                busy = [1, 0]
        return next((r for r, n in zip(self.sides[side], busy, strict=True) if n), None)

    async def until_free(self):
        """Nobody keeps or fetches anything; returns how long that took."""
        clock = asyncio.get_running_loop().time
        since_s = clock()

        async def free():
            pages = [await self.kept(replica) for replica in self.fleet]
            return not any(page["pinned"] or page["fetching"] for page in pages)

        async with asyncio.timeout(DEADLINE_S):
            await eventually(free)
        return clock() - since_s

    async def metric(self, outcome):
        """Splits with that outcome."""
        name = f'pointsman_splits_total{{outcome="{outcome}"}}'
        page = (await self.router.metrics()).splitlines()
        return sum(float(line.split()[-1]) for line in page if line.startswith(name))

    async def all_ready(self):
        async def ready():
            return all(view["ready"] for view in (await self.router.fleet())["replicas"])

        async with asyncio.timeout(DEADLINE_S):
            await eventually(ready, 0.05)


@asynccontextmanager
async def split_stage(dialect, folder):
    usual = ["--engine", ENGINES[dialect], "--link-gbps", "10", "--kv-lease", str(LEASE_S)]
    usual += ["--kv-dialect", dialect]
    async with Processes() as processes, aiohttp.ClientSession() as session:
        sides = {
            role: [
                ChaosReplica(
                    f"{role} {n}",
                    processes,
                    SIZE,
                    [*usual, "--kv-dialect", dialect, "--role", role],
                )
                for n in range(2)
            ]
            for role in ("prefill", "decode")
        }
        alone = ChaosReplica("alone", processes, Size(replicas=1, speed=50.0), usual[:2])
        await alone.start()
        for side in sides.values():
            await asyncio.gather(*(replica.start() for replica in side))
        config = {
            "split": {"kv_dialect": dialect, "link_gbps": 10},
            "policy": {"options": {"split": "always"}},
            "replicas": [entry(role, replica) for role, side in sides.items() for replica in side],
        }
        router = ServeProcess(config, folder)
        await router.start()
        stage = SplitStage(dialect, sides, router, session)
        await stage.all_ready()
        yield stage, alone
        await router.stop()


def entry(role, replica):
    port = int(replica.url.rpartition(":")[2])
    return {
        "url": replica.url,
        "role": role,
        "bootstrap_port": port,
        "kv_address": f"127.0.0.1:{port}",
    }


async def one_run(stage, rng, number, alone):
    """Ask for three answers, kill a replica, and return what became of it all."""
    phase, side = rng.choice(PHASES), rng.choice(list(stage.sides))
    paths = [rng.choice((CHAT, COMPLETIONS)) for _ in range(3)]
    asks = [ask(1000 * number + n, TOKENS, path=path, words=WORDS) for n, path in enumerate(paths)]
    wanted = [await unbroken(alone.url, asked) for asked in asks]
    victim = rng.choice(stage.sides[side])
    if phase == "before":
        await victim.kill()
        clients = [await connect(stage.router.url, asked) for asked in asks]
    else:
        clients = [await connect(stage.router.url, asked) for asked in asks]
        found = await caught(stage, side, phase, clients)
        victim = found or victim
        await victim.kill()
    done, _ = await asyncio.wait({client.over for client in clients}, timeout=DEADLINE_S)
    outcomes = [client.outcome(told) for client, told in zip(clients, wanted, strict=True)]
    assert len(done) == len(clients), (phase, side, outcomes)
    free_s = await stage.until_free()
    await stage.router.drained()
    await victim.restart()
    await stage.all_ready()
    return phase, side, outcomes, free_s


async def caught(stage, side, phase, clients):
    """Wait for a replica of that side in that phase; None if all answers were quicker."""
    while not all(client.over.done() for client in clients):
        found = await stage.working(side, phase)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("dialect", ENGINES)
async def test_either_leg_is_killed_at_any_moment(dialect, tmp_path, report):
    rng = random.Random(f"{SEED} {dialect}")
    seen, bad, slowest_s, gaps = {}, [], 0.0, []
    async with split_stage(dialect, tmp_path) as (stage, alone):
        for number in range(RUNS):
            phase, side, outcomes, free_s = await one_run(stage, rng, number, alone)
            seen[f"{side} killed: {phase}"] = seen.get(f"{side} killed: {phase}", 0) + 1
            bad += [(phase, side, o) for o in outcomes if o.ending is not Ending.EQUAL]
            slowest_s = max(slowest_s, free_s)
            gaps += [o.longest_gap_s for o in outcomes]
        begun = await stage.metric("begun")
        unusable = await stage.metric("unusable")
    report.add(
        f"8. 2 prefill and 2 decode replicas, {dialect}: either leg is killed",
        f"every text is equal; no KV is kept longer than {FREE_WITHIN_S:g} s after the answers",
        {
            "runs": RUNS,
            "seed": SEED,
            "not_equal": len(bad),
            "longest_kept_s": round(slowest_s, 2),
            "longest_gap_s": round(max(gaps), 2),
            **dict(sorted(seen.items())),
            "splits_begun": begun,
            "splits_unusable": unusable,
        },
    )
    assert bad == []
    assert begun >= RUNS  # what is not split has no legs to kill
    assert slowest_s <= FREE_WITHIN_S
