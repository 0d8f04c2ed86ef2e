"""Some of the fleet is lost under load, and comes back: who is let in is served in time."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.faults import Kill, befalling
from tests.chaos.fleet import Size
from tests.chaos.load import Book
from tests.chaos.report import SCALE
from tests.chaos.stage import staged
from tests.chaos.stream import Ending

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(200 + 200 * SCALE)]

TTFT_S = 2.0
"""The objective that is configured by default for short prompts."""
SETTLED_S = 10.0
SIZE = Size(replicas=8, slots=4)


def goodput(outcomes):
    """Share of what was let in whose text is right and whose first token came in time."""
    let_in = [o for o in outcomes if o.ending is not Ending.REFUSED]
    good = [o for o in let_in if o.ending is Ending.EQUAL and o.ttft_s <= TTFT_S]
    return round(len(good) / max(len(let_in), 1), 3)


def between(outcomes, since_s, until_s):
    """Those that arrived then."""
    return [o for o in outcomes if since_s <= o.began_s < until_s]


async def test_one_of_eight_is_lost(tmp_path, report):
    async with staged(SIZE, tmp_path) as stage:
        clock = asyncio.get_running_loop().time
        async with stage.load(0.7, seed=31).going() as run:
            await asyncio.sleep(10.0)
            lost_s = clock()
            await stage.fleet[0].kill()
            await asyncio.sleep(SETTLED_S + 20.0 * SCALE)
            ended_s = clock()
        await stage.router.drained()
        settled = goodput(between(run.outcomes, lost_s + SETTLED_S, ended_s))
        report.add(
            "2a. 8 replicas at 70 %, one is lost for good",
            "goodput of what is let in >= 95 % from 10 s after the loss; no text is altered",
            {
                "before": goodput(between(run.outcomes, 0.0, lost_s)),
                "first_10_s": goodput(between(run.outcomes, lost_s, lost_s + SETTLED_S)),
                "after_10_s": settled,
                **run.figures(),
            },
        )
    assert run.bad() == []
    assert settled >= 0.95


async def test_half_of_the_fleet_is_lost_and_comes_back(tmp_path, report):
    hold = {"max_requests": SIZE.all_slots // 4, "shed_late": True}
    async with staged(SIZE, tmp_path, hold=hold) as stage:
        clock = asyncio.get_running_loop().time
        urgent, patient = (
            stage.load(0.45, seed=32),
            stage.load(0.45, seed=33, book=less(stage.book)),
        )
        lost, first = stage.fleet[:4], stage.fleet[0]
        async with urgent.going() as run, patient.going() as low:
            await asyncio.sleep(10.0)
            lost_s = clock()
            async with befalling(Kill(), lost[1:]):
                await first.kill()
                await asyncio.sleep(SETTLED_S + 10.0 * SCALE)
                await first.restart()
                await stage.until(first, lambda view: view["ready"])
                back_s = clock()
                await asyncio.sleep(8.0)
                alone_s = clock()
            await stage.all_ready()
            all_back_s = clock()
            await asyncio.sleep(40.0)
            ended_s = clock()
        await stage.router.drained()
        both = run.outcomes + low.outcomes
        least = between(both, lost_s, back_s)
        refused = [o for o in least if o.ending is Ending.REFUSED]
        soon = [o for o in refused if o.ended_s - o.began_s <= 1.0]
        shed = {
            name: round(share(of.outcomes, lost_s, back_s), 3)
            for name, of in (("urgent", run), ("patient", low))
        }
        taken = [o.replica for o in between(both, back_s, alone_s) if o.first_s is not None]
        fair = len(taken) / 5
        restored = goodput(between(both, all_back_s + 30.0, ended_s))
        figures = {
            "goodput_of_let_in": goodput(between(both, lost_s + SETTLED_S, back_s)),
            "refused": len(refused),
            "refused_within_1_s": len(soon),
            "refused_share": shed,
            "first_back_share_of_fair": round(taken.count(first.address) / max(fair, 1.0), 2),
            "goodput_30_s_after_return": restored,
            "urgent": run.figures(),
            "patient": low.figures(),
        }
        report.add(
            "2b. 8 replicas at 90 %, 4 are lost, and come back one before the others",
            "goodput of what is let in >= 90 %; the rest is refused, the less urgent first, within "
            "1 s or when somebody more urgent comes; the first one back gets <= 1.5 x its share; "
            ">= 95 % 30 s after all are back",
            figures,
        )
    assert run.bad() + low.bad() == []
    assert shed["urgent"] < shed["patient"]
    assert figures["goodput_of_let_in"] >= 0.9, figures
    assert len(soon) >= 0.95 * len(refused), figures
    assert figures["first_back_share_of_fair"] <= 1.5, figures
    assert restored >= 0.95, figures


def less(book):
    """The same requests, less urgent."""
    return Book([(asked.with_priority(3), told) for asked, told in book.answers], book.alone_s)


def share(outcomes, since_s, until_s):
    """How much of what arrived then was refused."""
    arrived = between(outcomes, since_s, until_s)
    return sum(o.ending is Ending.REFUSED for o in arrived) / max(len(arrived), 1)
