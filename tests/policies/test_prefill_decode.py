"""The split by estimate, on fleets made by hand. Times are those of a 70B model on four GPUs."""

from __future__ import annotations

from random import Random

import pytest

from policies.base import RequestFacts, Role
from policies.forecast import Clock, Forecast, Prefill, Stream
from policies.prefill_decode import PrefillDecode
from policies.speed import Speed
from policies.survival import Survival
from policies.testing import View
from policies.transfer import Transfer

KV_TOKENS = 470_000
FAST, SLOW = 6.6e-6, 2.6e-4
"""Seconds for the KV of a token over 400 and over 10 Gb/s."""

CLOCK = Clock(100.0)


def forecast(streams=0, context_tokens=2000, queued=()):
    """A replica with ``streams`` at their half, and prefills of ``queued`` tokens ahead."""
    speed = Speed(0.02, 52e-6, 1.3e-9, 0.02, 1e-5, 3e-8, prefill_factor=1.0, step_factor=1.0)
    made = Forecast(CLOCK, speed)
    survival = Survival()
    for number in range(streams):
        stream = Stream(96.0, 100.0, 100, context_tokens, 0.06, survival)
        made.streams[number] = made.tight[number] = stream
        made.context_tokens += context_tokens
    for number, tokens in enumerate(queued):
        time_s = speed.prefill_time_s(tokens)
        made.prefills[f"p{number}"] = Prefill(100.0, tokens, 0, time_s, 0.06, survival)
        made.prefill_s += time_s
        made.prefill_tokens += tokens
        made.context_tokens += tokens
    return made


def replica(name, role, *, token_s=FAST, zone="", whole=True, **load):
    return View(
        name,
        role=role,
        serves_whole=whole,
        zone=zone,
        transfer=None if role is Role.PREFILL else Transfer(token_s),
        kv_tokens=KV_TOKENS,
        forecast=forecast(**load),
    )


def prefill(name="p", **load):
    return replica(name, Role.PREFILL, **load)


def decode(name="d", **load):
    return replica(name, Role.DECODE, **load)


def ask(*replicas, tokens=16_000, cached=None, waited_s=0.0, **options):
    request = RequestFacts(
        prompt_tokens=tokens,
        streamed=True,
        ttft_slo_s=2.0 + 0.00025 * max(tokens - 4096, 0),
        tpot_slo_s=0.06,
        cached=cached or {},
        waited_s=waited_s,
        expected_output_tokens=200.0,
    )
    return PrefillDecode(**options).choose(request, replicas, Random(0))


def names(choice):
    return None if choice.prefill is None else choice.prefill.name, choice.replica.name


def test_a_long_prompt_is_split_where_streams_would_stall():
    choice = ask(prefill(), decode(streams=20))
    assert names(choice) == ("p", "d")
    assert not choice.hold
    assert choice.transfer_s == pytest.approx(16_000 * FAST, rel=0.1)
    pair = choice.estimates[0]
    assert (pair.prefill_replica, pair.replica) == ("p", "d")
    assert choice.ttft_s > pair.prefill_s + choice.transfer_s


def test_a_prompt_that_is_mostly_cached_where_it_is_answered_is_not_split():
    choice = ask(prefill(), decode(streams=20), cached={"d": 15_900})
    assert names(choice) == (None, "d")


def test_a_slow_link_is_not_worth_it():
    busy = prefill(queued=(8000,) * 40)
    assert names(ask(busy, decode(streams=20, token_s=SLOW))) == (None, "d")


def test_where_kv_comes_more_slowly_than_it_is_computed_roles_are_void():
    slow = decode(streams=20, token_s=SLOW)
    assert names(ask(prefill(), slow)) == (None, "p")
    assert names(ask(prefill(), slow, split="always")) == ("p", "d")
    alone = replica("p", Role.PREFILL, whole=False)
    assert names(ask(alone, slow)) == (None, "d")


def test_what_nobody_else_notices_is_not_split():
    assert names(ask(prefill(), decode(streams=20), tokens=400)) == (None, "d")
    assert names(ask(prefill(), decode(), cached={"d": 15_600})) == (None, "d")


def test_whoever_comes_while_a_long_prompt_is_computed_would_notice():
    assert names(ask(prefill(), decode())) == ("p", "d")


def test_a_long_queue_of_prompts_sends_one_to_where_it_is_answered():
    busy = prefill(queued=(8000,) * 12)
    assert names(ask(busy, decode(streams=2), tokens=4000)) == (None, "d")


def test_the_prefix_counts_on_the_prefill_side():
    choice = ask(prefill("p0"), prefill("p1"), decode(streams=20), cached={"p1": 12_000})
    assert names(choice) == ("p1", "d")
    assert choice.estimates[0].cached_tokens == 12_000


def test_of_two_prefill_replicas_the_one_with_less_to_do_computes():
    choice = ask(prefill("p0", queued=(4000,)), prefill("p1"), decode(streams=20))
    assert names(choice) == ("p1", "d")


def test_of_two_decode_replicas_the_one_with_shorter_steps_answers():
    choice = ask(prefill(), decode("d0", streams=60), decode("d1", streams=20))
    assert names(choice) == ("p", "d1")


def test_a_pair_in_one_zone_is_cheaper():
    fleet = [prefill("p0", zone="a"), prefill("p1", zone="b"), decode(streams=20, zone="b")]
    assert names(ask(*fleet)) == ("p1", "d")


def test_no_prefill_begins_whose_kv_would_find_no_place():
    full = decode("d0", streams=20, context_tokens=23_000, whole=False)
    choice = ask(prefill(), full)
    assert choice.hold
    assert choice.reason == "kv_full"
    assert names(ask(prefill(), full, decode("d1", streams=30))) == ("p", "d1")


def test_a_prompt_waits_while_every_prefill_replica_has_a_queue():
    choice = ask(prefill(queued=(16_000,)), decode(streams=20, whole=False), waited_s=0.0)
    assert choice.hold
    assert choice.reason == "queue"
    assert not ask(prefill(queued=(16_000,)), decode(streams=20, whole=False), wait=False).hold


def test_always_and_never_mean_it():
    assert names(ask(prefill(), decode(), tokens=100, split="always")) == ("p", "d")
    assert names(ask(prefill(), decode(), split="never")) == (None, "d")


def test_never_gives_way_where_nobody_serves_alone():
    fleet = [prefill(whole=False), decode(whole=False)]
    assert names(ask(*fleet, split="never")) == ("p", "d")


@pytest.mark.parametrize(
    ("tokens", "cached", "splits"),
    [(2048, 0, True), (1000, 200, True), (1000, 400, False), (40_000, 38_500, False)],
)
def test_the_fixed_rule_looks_at_the_uncached_tokens(tokens, cached, splits):
    choice = ask(prefill(), decode(), tokens=tokens, cached={"d": cached}, split="fixed")
    assert names(choice) == ("p" if splits else None, "d")


def test_prefill_replicas_serve_alone_only_when_no_other_can():
    assert names(ask(prefill("p0"), prefill("p1", queued=(4000,)))) == (None, "p0")
    assert names(ask(prefill("p0"), decode("d0", streams=40), tokens=300)) == (None, "d0")


def test_replicas_of_both_roles_lend_each_other_their_prefill():
    full = replica("r1", Role.BOTH, streams=1, context_tokens=KV_TOKENS - 8000)
    choice = ask(replica("r0", Role.BOTH, streams=40), full, replica("r2", Role.BOTH, streams=40))
    assert choice.prefill is full  # it can compute, but has no place for an answer
    assert choice.replica is not full


def test_a_fleet_without_a_way_for_kv_splits_nothing():
    fleet = [View(f"r{n}", kv_tokens=KV_TOKENS, forecast=forecast(streams=9)) for n in range(3)]
    choice = ask(*fleet)
    assert choice.prefill is None
