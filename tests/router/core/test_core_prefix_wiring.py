"""The dispatcher tells the prefix index of what it sends, and when it is over."""

from random import Random

from policies.base import RequestFacts
from policies.round_robin import RoundRobin
from router.core.dispatcher import Dispatcher
from router.core.fleet import FleetState
from router.core.prefix_index import PrefixIndex
from router.core.request import Failure, Request
from router.core.sample import Sample


class Nobody:
    def request_ended(self, request, replica, now): ...
    def policy_failed(self, error): ...
    def health_changed(self, *args, **kwargs): ...


class Told(PrefixIndex):
    """A prefix index that writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def sent(self, replica, keys, block_tokens):
        clock = super().sent(replica, keys, block_tokens)
        self.calls.append(("sent", replica, clock, keys))
        return clock

    def ended(self, replica, sent, keys, block_tokens):
        super().ended(replica, sent, keys, block_tokens)
        self.calls.append(("ended", replica, sent, keys))


def build():
    fleet, index = FleetState(), Told()
    dispatcher = Dispatcher(fleet, RoundRobin(), Random(1), Nobody(), prefix_index=index)
    for name in ("a", "b"):
        replica = fleet.add(name, f"http://{name}")
        dispatcher.health_seen(replica, 0.0, healthy=True, reason="fine")
        dispatcher.models_seen(replica, ["m"])
    return dispatcher, index


def arrive(dispatcher, keys=(1, 2)):
    request = Request("q", RequestFacts(prefix=keys, prefix_block_tokens=256), 0.0)
    (send,) = dispatcher.request_arrived(request, 0.0)
    return send.attempt


def test_each_prompt_is_sent_once_and_ends_once():
    dispatcher, index = build()
    first, second = arrive(dispatcher), arrive(dispatcher)
    clocks = [call[2] for call in index.calls]
    assert [call[:2] for call in index.calls] == [("sent", "a"), ("sent", "b")]
    del index.calls[:]
    dispatcher.attempt_ended(second, 1.0)
    dispatcher.client_gone(first.request, 2.0)
    assert index.calls == [("ended", "b", clocks[1], (1, 2)), ("ended", "a", clocks[0], (1, 2))]


def test_a_prompt_that_goes_elsewhere_is_known_there():
    dispatcher, index = build()
    attempt = arrive(dispatcher)
    dispatcher.attempt_failed(attempt, Failure.CONNECT, 1.0)
    assert [call[:2] for call in index.calls] == [("sent", "a"), ("ended", "a"), ("sent", "b")]


def test_prompts_without_keys_are_not_told_of():
    dispatcher, index = build()
    dispatcher.attempt_ended(arrive(dispatcher, keys=()), 1.0)
    assert index.calls == []


def test_the_size_of_the_kv_cache_bounds_what_is_believed():
    dispatcher, index = build()
    attempt = arrive(dispatcher, keys=tuple(range(10)))
    sample = Sample(running=1, waiting=0, kv_blocks=32, kv_block_tokens=16)
    dispatcher.sampled(attempt.replica, sample, 0.5)
    assert index.match(tuple(range(10)), 256) == {"a": 512}
