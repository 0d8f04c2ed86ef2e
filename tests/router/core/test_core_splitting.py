"""Requests whose prompt is computed by one replica and answered by another."""

from __future__ import annotations

import pytest
from house import House
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Choice, RequestFacts, Role
from policies.transfer import Transfer
from router.core.actions import Abort, Cancel, Refuse, Send
from router.core.dispatcher import Limits
from router.core.hold import HoldLimits
from router.core.replica import PartInSplits
from router.core.request import Failure, Leg, Request, State

TOKENS = 8000
TOKEN_S = 1e-5


class Pairs:
    """Splits whenever it can: the first prefill replica with the first decode replica."""

    def choose(self, request, replicas, rng):
        prefills = [r for r in replicas if r.role is Role.PREFILL]
        decodes = [r for r in replicas if r.role is Role.DECODE]
        if prefills and decodes:
            return Choice(decodes[0], "split", prefill=prefills[0])
        return Choice(replicas[0], "whole")


class Splitting(House):
    """Prefill replicas (p…) and decode replicas (d…)."""

    def __init__(self, *names, policy=None):
        hold = HoldLimits(outage_s=30.0)
        super().__init__(*names, policy=policy or Pairs(), limits=Limits(), hold=hold)

    def joined(self, replica):
        prefills = replica.name.startswith("p")
        replica.role = Role.PREFILL if prefills else Role.DECODE
        if not prefills:
            replica.transfer = Transfer(TOKEN_S)

    def split(self, *, streamed=True):
        facts = RequestFacts(model="m", streamed=streamed, prompt_tokens=TOKENS)
        (action,) = self.dispatcher.request_arrived(Request("q", facts, self.now), self.now)
        assert isinstance(action, Send)
        return action.prefill, action.attempt

    def prefill(self, leg, seconds=1.0):
        self.now += seconds
        assert list(self.dispatcher.prefilled(leg, self.now)) == []

    def fail(self, attempt, failure=Failure.RESET):
        return super().fail(attempt, failure)

    def finish(self, attempt, seconds=0.5):
        self.now += seconds
        assert list(self.dispatcher.headers_received(attempt, 200, self.now)) == []
        if attempt.request.facts.streamed:
            self.dispatcher.progress(attempt, 1, self.now)
        self.dispatcher.attempt_ended(attempt, self.now)
        self.check_all_is_over()


@pytest.mark.parametrize("streamed", [True, False])
def test_both_replicas_are_charged_and_both_are_freed(streamed):
    house = Splitting("p", "d")
    leg, decode = house.split(streamed=streamed)
    prefill, answer = leg.replica, decode.replica
    assert (prefill.name, answer.name) == ("p", "d")
    assert (leg.leg, decode.leg) == (Leg.PREFILL, Leg.DECODE)
    assert (prefill.in_flight, answer.in_flight) == (1, 1)
    assert (prefill.in_flight_prefill_tokens, answer.in_flight_prefill_tokens) == (TOKENS, 0)
    assert answer.forecast.context_tokens == TOKENS
    house.prefill(leg)
    assert (prefill.in_flight, answer.in_flight) == (0, 1)
    assert answer.transfer.pending_tokens == TOKENS
    house.finish(decode)
    assert house.ended == [(State.DONE, "d")]
    assert house.dispatcher.counters.split == 1


def test_a_first_token_may_come_before_its_prefill_is_told_of():
    house = Splitting("p", "d")
    leg, decode = house.split()
    house.now += 1.0
    assert list(house.dispatcher.headers_received(decode, 200, house.now)) == []
    house.dispatcher.progress(decode, 1, house.now)
    house.prefill(leg)
    assert decode.replica.transfer.pending_tokens == 0
    assert leg.replica.in_flight == 0
    house.dispatcher.attempt_ended(decode, house.now)
    house.check_all_is_over()


def test_a_replica_tells_its_role_and_may_do_so_again():
    house = Splitting("a", "d")
    replica = house.fleet.replicas["a"]
    transfer = Transfer(TOKEN_S)
    house.dispatcher.role_seen(replica, PartInSplits(Role.BOTH, transfer=transfer))
    house.dispatcher.role_seen(replica, PartInSplits(Role.BOTH, transfer=Transfer(2 * TOKEN_S)))
    assert (replica.role, replica.serves_whole) == (Role.BOTH, True)
    assert replica.transfer is transfer  # with all that was learned
    house.dispatcher.role_seen(replica, PartInSplits(Role.PREFILL, serves_whole=False))
    assert (replica.role, replica.serves_whole, replica.transfer) == (Role.PREFILL, False, None)


def test_what_a_transfer_takes_is_learned_of_those_that_had_the_link_alone():
    house = Splitting("p", "d")
    for _ in range(60):
        leg, decode = house.split()
        house.prefill(leg)
        forecast, transfer = decode.replica.forecast, decode.replica.transfer
        step_s = forecast.step_s
        house.finish(decode, transfer.latency_s + step_s + 3 * TOKEN_S * TOKENS)
    assert transfer.token_s == pytest.approx(3 * TOKEN_S, rel=0.05)


def test_a_decode_replica_learns_nothing_of_prefills():
    house = Splitting("p", "d")
    speeds = {name: r.forecast.speed for name, r in house.fleet.replicas.items()}
    before = speeds["d"].prefill_time_s(1000)
    first = speeds["p"].prefill_time_s(1000)
    for _ in range(30):
        leg, decode = house.split()
        house.prefill(leg, 20.0)
        house.finish(decode, 5.0)
    assert speeds["d"].prefill_time_s(1000) == before
    assert speeds["p"].prefill_time_s(1000) > 2 * first


@pytest.mark.parametrize("failure", list(Failure))
def test_where_the_prefill_fails_another_one_is_asked_and_the_decode_replica_stays(failure):
    house = Splitting("p1", "p2", "d")
    leg, decode = house.split()
    drop, send = house.fail(leg, failure)
    assert isinstance(drop, Cancel)
    assert drop.attempt is decode
    assert (send.prefill.replica.name, send.attempt.replica.name) == ("p2", "d")
    house.prefill(send.prefill)
    house.finish(send.attempt)
    assert house.ended == [(State.DONE, "d")]


@pytest.mark.parametrize("prefilled", [True, False])
def test_where_the_decode_fails_another_pair_is_asked_and_the_prefill_is_dropped(prefilled):
    house = Splitting("p", "d1", "d2")
    leg, decode = house.split()
    if prefilled:
        house.prefill(leg)
    *drops, send = house.fail(decode)
    assert [drop.attempt for drop in drops] == ([] if prefilled else [leg])
    assert (send.prefill.replica.name, send.attempt.replica.name) == ("p", "d2")
    house.prefill(send.prefill)
    house.finish(send.attempt)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_prefill_replica_that_refuses_costs_no_request(status):
    house = Splitting("p1", "p2", "d")
    leg, decode = house.split()
    drop, send = house.dispatcher.headers_received(leg, status, house.now)
    assert drop.attempt is decode
    assert send.prefill.replica.name == "p2"
    house.prefill(send.prefill)
    house.finish(send.attempt)


@pytest.mark.parametrize("of_prefill", [True, False])
def test_an_error_of_the_clients_own_making_is_relayed_from_either_leg(of_prefill):
    house = Splitting("p", "d")
    leg, decode = house.split()
    if not of_prefill:
        house.prefill(leg)
    answering = leg if of_prefill else decode
    drops = house.dispatcher.headers_received(answering, 400, house.now)
    assert [drop.attempt for drop in drops] == ([decode] if of_prefill else [])
    assert answering.request.attempt is answering
    house.dispatcher.attempt_ended(answering, house.now)
    house.check_all_is_over()
    assert house.ended == [(State.DONE, answering.replica.name)]


def test_without_what_the_kv_is_fetched_by_the_answering_replica_serves_it_whole():
    house = Splitting("p", "d")
    leg, decode = house.split()
    house.now += 1.0
    assert list(house.dispatcher.prefill_unusable(leg, house.now)) == []
    house.finish(decode)
    assert house.dispatcher.counters.prefills_unusable == 1


@pytest.mark.parametrize("prefilled", [True, False])
def test_a_client_that_leaves_ends_both_legs(prefilled):
    house = Splitting("p", "d")
    leg, decode = house.split()
    if prefilled:
        house.prefill(leg)
    drops = house.dispatcher.client_gone(decode.request, house.now)
    assert [drop.attempt for drop in drops] == ([decode] if prefilled else [leg, decode])
    house.check_all_is_over()


def test_a_stream_that_breaks_may_go_on_as_a_pair():
    house = Splitting("p", "d1", "d2")
    leg, decode = house.split()
    house.prefill(leg)
    house.dispatcher.headers_received(decode, 200, house.now)
    house.dispatcher.progress(decode, 1, house.now)
    decode.request.continuable = True
    (send,) = house.fail(decode)
    assert send.continues
    assert (send.prefill.replica.name, send.attempt.replica.name) == ("p", "d2")
    house.prefill(send.prefill)
    house.finish(send.attempt)


def test_an_answer_that_ends_before_its_prefill_was_told_of_leaves_no_leg():
    house = Splitting("p", "d")
    leg, decode = house.split()
    house.dispatcher.headers_received(decode, 200, house.now)
    house.dispatcher.progress(decode, 1, house.now)
    (drop,) = house.dispatcher.attempt_ended(decode, house.now)
    assert drop.attempt is leg
    house.check_all_is_over()


def test_a_policy_that_splits_where_no_kv_can_move_is_not_followed():
    house, errors = Splitting("p", "d"), []
    house.policy_failed = errors.append
    house.fleet.replicas["d"].transfer = None
    leg, attempt = house.split()
    assert leg is None
    assert attempt.leg is Leg.WHOLE
    assert "no KV can be brought to d" in str(errors[0])
    house.finish(attempt)


def test_a_long_prefill_is_no_stall_of_the_replica_that_waits_for_it():
    house = Splitting("p", "d")
    leg, decode = house.split()
    until_s = house.now + 25.0
    while house.now < until_s:
        house.now += 0.25
        leg.replica.silence.heard(house.now)  # it works for others, too
        assert list(house.dispatcher.tick(house.now)) == []
    house.prefill(leg, 0.0)
    house.finish(decode)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["prefilled", "unusable", "fail", "err", "bad", "gone", "begin"]),
            st.booleans(),
        ),
        max_size=10,
    ),
    prefills=st.integers(0, 3),
    decodes=st.integers(1, 3),
)
def test_whatever_happens_in_whatever_order_nothing_is_left(events, prefills, decodes):
    house = Splitting(*(f"p{n}" for n in range(prefills)), *(f"d{n}" for n in range(decodes)))
    facts = RequestFacts(model="m", streamed=True, prompt_tokens=TOKENS)
    request = Request("q", facts, house.now)
    house.dispatcher.request_arrived(request, house.now)
    for event, of_leg in events:
        if request.state.ended:
            break
        house.now += 0.1
        leg = request.split.leg if request.split is not None else None
        befall(house, request, event, leg, leg if of_leg else request.attempt)
        leg = request.split.leg if request.split is not None else None
        open_attempts = [a for a in (request.attempt, leg) if a is not None]
        replicas = house.fleet.replicas.values()
        assert sum(replica.in_flight for replica in replicas) == len(open_attempts)
        assert request.attempt is not None or request.split is None
    if not request.state.ended:
        house.dispatcher.client_gone(request, house.now)
    house.check_all_is_over()
    assert len(house.ended) == 1


def befall(house, request, event, leg, attempt):
    dispatcher, now = house.dispatcher, house.now
    if event == "gone":
        dispatcher.client_gone(request, now)
    elif event == "fail" and attempt is not None:
        actions = dispatcher.attempt_failed(attempt, Failure.RESET, now)
        assert all(isinstance(action, Abort | Cancel | Send | Refuse) for action in actions)
    elif event in {"err", "bad"} and attempt is not None and not request.relayed:
        dispatcher.headers_received(attempt, 503 if event == "err" else 400, now)
        if request.attempt is attempt:
            dispatcher.attempt_ended(attempt, now)
    elif event == "prefilled" and leg is not None:
        dispatcher.prefilled(leg, now)
    elif event == "unusable" and leg is not None:
        dispatcher.prefill_unusable(leg, now)
    elif event == "begin" and request.attempt is not None:
        dispatcher.headers_received(request.attempt, 200, now)
        dispatcher.progress(request.attempt, 1, now)


class Halves(Splitting):
    """Replicas of an engine that serves nothing alone."""

    def joined(self, replica):
        super().joined(replica)
        replica.serves_whole = False


def arrive(house, **facts):
    request = Request("q", RequestFacts(model="m", prompt_tokens=TOKENS, **facts), house.now)
    return request, list(house.dispatcher.request_arrived(request, house.now))


def test_half_a_pair_serves_nobody_and_the_request_waits_for_the_other_half():
    house = Halves("p", "d")
    house.down("p")
    request, actions = arrive(house)
    assert actions == []
    assert request.state is State.HELD
    (send,) = house.up("p")
    assert (send.prefill.replica.name, send.attempt.replica.name) == ("p", "d")
    house.prefill(send.prefill)
    house.finish(send.attempt)


def test_half_a_pair_still_serves_what_cannot_be_split():
    house = Halves("p", "d")
    house.down("p")
    _, (send,) = arrive(house, splits=False)
    assert (send.prefill, send.attempt.replica.name) == (None, "d")


def test_where_a_leg_fails_and_its_pool_is_empty_the_request_waits():
    house = Halves("p", "d1", "d2")
    leg, decode = house.split()
    actions = house.fail(leg)
    assert [type(action) for action in actions] == [Cancel]
    assert decode.request.state is State.HELD


def test_a_half_open_replica_that_serves_nothing_alone_proves_itself_in_a_pair():
    house = Halves("p1", "p2", "d")
    for _ in range(3):
        leg, decode = house.split()
        assert leg.replica.name == "p1"
        (cancel, send) = house.fail(leg)
        assert cancel.attempt is decode
        house.prefill(send.prefill)
        house.finish(send.attempt)
    assert not house.fleet.replicas["p1"].health.in_service
    house.now += 60.0
    house.dispatcher.tick(house.now)
    leg, decode = house.split()
    assert (leg.replica.name, decode.replica.name) == ("p1", "d")
    house.prefill(leg)
    house.finish(decode)


def test_a_side_of_which_nobody_is_in_service_is_offered_all_the_same():
    house = Halves("p", "d1", "d2", "d3")
    for _ in range(3):
        leg, _ = house.split()
        house.fail(leg)
        house.dispatcher.client_gone(leg.request, house.now)
    assert not house.fleet.replicas["p"].health.in_service
    leg, decode = house.split()
    assert leg.replica.name == "p"
    house.prefill(leg)
    house.finish(decode)


def test_the_only_one_of_a_side_is_offered_however_little_its_weight():
    house = Halves("p", "d1", "d2")
    house.down("d1")
    house.down("d2")
    house.now += 1.0
    house.up("d1")
    house.up("d2")
    for _ in range(20):
        leg, decode = house.split()
        house.prefill(leg)
        house.finish(decode)


def test_a_half_open_replica_is_asked_by_who_has_tried_the_others_of_its_side():
    house = Halves("p1", "p2", "d1", "d2")
    house.down("d2")
    house.now += 1.0
    house.up("d2")
    assert house.fleet.replicas["d2"].health.probing
    replica = house.fleet.replicas["d2"]
    replica.health.probe_sent(house.now)
    _, decode = house.split()
    assert decode.replica.name == "d1"
    replica.health.probe_sent_s = None  # whoever was sent there has left
    actions = house.fail(decode)
    (send,) = [action for action in actions if isinstance(action, Send)]
    assert send.attempt.replica is replica
    house.prefill(send.prefill)
    house.finish(send.attempt)


@pytest.mark.parametrize("when", ["before", "afterwards"])
def test_a_prefill_of_its_own_is_no_slow_transfer(when):
    house = Splitting("p", "d")
    transfer = house.fleet.replicas["d"].transfer
    leg, decode = house.split()
    forecast = decode.replica.forecast
    if when == "before":
        forecast.prefill_tokens += 100_000
    house.prefill(leg)
    forecast.prefill_tokens += 100_000 if when == "afterwards" else -100_000
    house.now += 12.0
    assert list(house.dispatcher.headers_received(decode, 200, house.now)) == []
    house.dispatcher.progress(decode, 1, house.now)
    assert transfer.token_s == TOKEN_S
