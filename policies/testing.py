"""A conformance kit for policies: the laws that every policy keeps, and how to check them.

It needs no test framework::

    from policies.testing import check

    def test_my_policy_keeps_the_laws():
        check(MyPolicy)

The laws: a policy answers with one of the candidates it was given and a reason; it changes
nothing that it sees; chance comes from ``rng`` alone, so equal seeds give equal answers; and what
it was asked before does not change what it answers now. They hold for one replica and for a
thousand, for idle and for crowded ones, and whatever of the polled values is unknown.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from policies.base import Choice, RequestFacts, Role
from policies.transfer import Transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.base import Policy, ReplicaView
    from policies.forecast import Forecast

FLEET_SIZES = (1, 2, 3, 8, 1000)


class LawBroken(AssertionError):  # noqa: N818 - it reads as what happened
    """A policy broke one of the laws; the message says which, and in what case."""


@dataclass(slots=True, frozen=True)
class View:
    """A replica as a policy sees it, made up; a ``ReplicaView`` that cannot be written to."""

    name: str
    running: int | None = None
    waiting: int | None = None
    kv_occupancy: float | None = None
    in_flight: int = 0
    in_flight_prompt_tokens: int = 0
    in_flight_output_tokens: int = 0
    unseen: int = 0
    in_flight_prefills: int = 0
    in_flight_prefill_tokens: int = 0
    kv_tokens: int | None = None
    adapters: frozenset[str] | None = None
    forecast: Forecast | None = None
    role: Role = Role.BOTH
    serves_whole: bool = True
    zone: str = ""
    transfer: Transfer | None = None
    last_dispatch: int = 0


def check(make: Callable[[], Policy], *, rounds: int = 40, seed: int = 0) -> None:
    """Check a policy in ``rounds`` made-up cases for each of :data:`FLEET_SIZES`.

    Args:
        make: Makes the policy: its class, or a function when it needs options.
        rounds: Cases for each size of fleet.
        seed: Seed of the cases; equal seeds give equal cases.

    Raises:
        LawBroken: The policy broke a law.
    """
    rng = Random(seed)
    seasoned = make()
    for size in FLEET_SIZES:
        for _ in range(rounds if size < FLEET_SIZES[-1] else 2):
            check_case(make, seasoned, made_up_request(rng), made_up_fleet(rng, size))


def check_case(
    make: Callable[[], Policy],
    seasoned: Policy,
    request: RequestFacts,
    replicas: Sequence[ReplicaView],
    seed: int = 0,
) -> None:
    """Check a policy in one case.

    Args:
        make: Makes the policy.
        seasoned: One made earlier, which may have chosen before.
        request: The request.
        replicas: The candidates.
        seed: Seed of the policy's chance.

    Raises:
        LawBroken: The policy broke a law.
    """
    case = f"request {request}, {len(replicas)} replicas {replicas[:3]}…, seed {seed}"
    before = copy.deepcopy((request, list(replicas)))
    answers = [
        _answer(policy, request, replicas, seed, case) for policy in (make(), seasoned, seasoned)
    ]
    if (request, list(replicas)) != before:
        msg = f"it changed what it was shown: {case}"
        raise LawBroken(msg)
    if answers[1] != answers[2]:
        msg = f"asked twice with equal seeds, it answered {answers[1]} and {answers[2]}: {case}"
        raise LawBroken(msg)
    if answers[0] != answers[1]:
        msg = f"a new one answered {answers[0]}, one used before {answers[1]}: {case}"
        raise LawBroken(msg)


def made_up_request(rng: Random) -> RequestFacts:
    """A request with facts drawn at random, many of them missing."""
    return RequestFacts(
        model=rng.choice([None, "small", "large"]),
        prompt_tokens=rng.choice([0, 1, 500, 32_000, 1_000_000]),
        max_output_tokens=rng.choice([None, 1, 256, 100_000]),
        session=rng.choice([None, "", "user-1", "user-2", "\udcff"]),
        priority=rng.choice([0, -1, 10]),
        streamed=rng.random() < 0.5,
        tenant=rng.choice([None, "tenant-1", "tenant-2"]),
        ttft_slo_s=rng.choice([None, 0.5, 2.0]),
        tpot_slo_s=rng.choice([None, 0.06]),
        deadline_s=rng.choice([None, 0.0, 30.0]),
        prefix=rng.choice([(), (1, 2, 3)]),
        prefix_block_tokens=256,
        cached=rng.choice([{}, {"10.0.0.0:8000": 256, "10.0.0.1:8000": 768}]),
        waited_s=rng.choice([0.0, 0.1, 100.0]),
        choices=rng.choice([1, 1, 4]),
    )


def made_up_fleet(rng: Random, size: int) -> tuple[View, ...]:
    """A fleet of ``size`` replicas: all known, none known, or mixed; idle, busy or crowded."""
    known = rng.choice([0.0, 0.5, 1.0])
    crowd = rng.choice([0, 3, 300])
    order = list(range(size))
    rng.shuffle(order)
    return tuple(_made_up_view(rng, number, known, crowd) for number in order)


def _made_up_view(rng: Random, number: int, known: float, crowd: int) -> View:
    in_flight = rng.randint(0, crowd)
    return View(
        name=f"10.0.{number // 256}.{number % 256}:8000",
        running=rng.randint(0, crowd) if rng.random() < known else None,
        waiting=rng.randint(0, crowd) if rng.random() < known else None,
        kv_occupancy=rng.choice([0.0, rng.random(), 1.0]) if rng.random() < known else None,
        in_flight=in_flight,
        in_flight_prompt_tokens=in_flight * rng.randint(0, 32_000),
        in_flight_output_tokens=in_flight * rng.randint(0, 2_000),
        unseen=rng.randint(0, crowd),
        in_flight_prefills=in_flight // 2,
        in_flight_prefill_tokens=in_flight // 2 * rng.randint(0, 32_000),
        kv_tokens=rng.choice([16, 450_000]) if rng.random() < known else None,
        adapters=frozenset({"large"}) if rng.random() < known else None,
        role=rng.choice([Role.BOTH, Role.BOTH, Role.PREFILL, Role.DECODE]),
        serves_whole=rng.random() < 0.8,
        zone=rng.choice(["", "a", "b"]),
        transfer=rng.choice([None, Transfer(1e-5)]),
        last_dispatch=number if rng.random() < 0.5 else 0,
    )


def _answer(
    policy: Policy, request: RequestFacts, replicas: Sequence[ReplicaView], seed: int, case: str
) -> tuple[int, str]:
    try:
        choice: object = policy.choose(request, replicas, Random(seed))
    except Exception as error:
        msg = f"it raised {error!r}: {case}"
        raise LawBroken(msg) from error
    if not isinstance(choice, Choice):
        msg = f"it answered {choice!r}, which is no Choice: {case}"
        raise LawBroken(msg)
    reason: object = choice.reason
    if not isinstance(reason, str) or not reason:
        msg = f"it gave {reason!r} as its reason: {case}"
        raise LawBroken(msg)
    prefill = choice.prefill
    places = {id(replica): place for place, replica in enumerate(replicas)}
    for chosen in (choice.replica,) if prefill is None else (choice.replica, prefill):
        if id(chosen) not in places:
            msg = f"it chose {chosen!r}, which is no candidate: {case}"
            raise LawBroken(msg)
    if prefill is choice.replica:
        msg = f"it split a request between {prefill!r} and itself: {case}"
        raise LawBroken(msg)
    return places[id(choice.replica)], reason
