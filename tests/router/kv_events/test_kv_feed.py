"""A real publisher on a loopback port."""

import asyncio
import json

import msgspec
import pytest
import uvloop
import zmq
import zmq.asyncio

from router.api.prefix import BLOCK_IDS, id_keys, root
from router.core.prefix_index import PrefixIndex
from router.core.replica import Replica
from router.kv_events.feed import KvEventFeed, Names

IDS = list(range(BLOCK_IDS))
KEYS = id_keys([*IDS, 0], root(None, "m"))
STORED = {
    "type": "BlockStored",
    "block_hashes": list(range(16)),
    "parent_block_hash": None,
    "token_ids": IDS,
    "block_size": 16,
    "medium": "GPU",
}
REMOVED = {"type": "BlockRemoved", "block_hashes": [15], "medium": "GPU"}
DEADLINE_S = 10


class Publisher:
    """Publishes as vLLM does; its socket tells when somebody subscribes."""

    def __init__(self, context, endpoint="tcp://127.0.0.1:*"):
        self.socket = context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(endpoint)
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.number = 0

    async def subscribed(self):
        async with asyncio.timeout(DEADLINE_S):
            assert await self.socket.recv() == b"\x01"

    async def publish(self, *events, skip=0):
        payload = msgspec.msgpack.encode([0.0, list(events), 0])
        self.number += skip
        await self.raw(b"kv@m", self.number.to_bytes(8, "big"), payload)
        self.number += 1

    async def raw(self, *frames):
        await self.socket.send_multipart(frames)


@pytest.fixture
def context():
    with zmq.asyncio.Context() as context:
        yield context
        context.destroy(linger=0)


@pytest.fixture
async def followed(context):
    publisher = Publisher(context)
    index = PrefixIndex()
    replica = Replica("a", "http://a")
    replica.model_entries = {"m": b'{"id":"m","parent":null}'}
    feed = KvEventFeed(index)
    feed.watch(replica, publisher.endpoint)
    await feed.start()
    await publisher.subscribed()
    yield publisher, index, feed
    await feed.aclose()
    publisher.socket.close(linger=0)


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the other end of a socket signals to nobody
            await asyncio.sleep(0.002)


def believed(index):
    return index.match(KEYS, BLOCK_IDS) == {"a": BLOCK_IDS}


async def test_the_index_follows_a_publisher(followed):
    publisher, index, feed = followed
    await publisher.publish(STORED)
    await until(lambda: believed(index))
    assert feed.blocks == {"a": 16}
    await publisher.publish(REMOVED)
    await until(lambda: not believed(index))
    await publisher.publish({"type": "AllBlocksCleared"})
    await until(lambda: feed.counters["a"].events == 3)
    assert feed.counters["a"].messages == 3
    assert feed.blocks == {"a": 0}


async def test_gaps_and_garbage_are_counted(followed):
    publisher, index, feed = followed
    counters = feed.counters["a"]
    await publisher.publish(STORED)
    await publisher.publish(REMOVED, skip=2)
    await until(lambda: counters.messages == 2)
    assert (counters.gaps, counters.missed) == (1, 2)
    assert believed(index)
    await publisher.raw(b"garbage")
    await until(lambda: counters.malformed == 1)
    await publisher.publish(STORED)
    await publisher.publish(REMOVED)
    await until(lambda: not believed(index))


async def test_an_engine_that_comes_back_is_followed_again(context, followed):
    publisher, index, feed = followed
    counters = feed.counters["a"]
    await publisher.publish()
    await publisher.publish(STORED)
    await until(lambda: believed(index))
    publisher.socket.close(linger=0)
    await until(lambda: counters.disconnects == 1)
    again = Publisher(context, publisher.endpoint)
    await again.subscribed()
    await again.publish()
    await until(lambda: counters.restarts == 1)
    assert not believed(index)
    await again.publish(STORED)
    await until(lambda: believed(index))
    again.socket.close(linger=0)


async def test_bursts_leave_others_their_turn(followed):
    publisher, _, feed = followed
    turns = 0
    done = asyncio.Event()

    async def others():
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    for _ in range(200):
        await publisher.publish(STORED)
    await until(lambda: feed.counters["a"].messages == 200)
    done.set()
    await other
    assert turns >= 200


def test_on_the_loop_that_the_router_runs_on():
    async def follow():
        with zmq.asyncio.Context() as context:
            publisher, index = Publisher(context), PrefixIndex()
            feed = KvEventFeed(index)
            replica = Replica("a", "http://a")
            replica.model_entries = {"m": entry(parent=None)}
            feed.watch(replica, publisher.endpoint)
            await feed.start()
            await publisher.subscribed()
            await publisher.publish(STORED)
            await until(lambda: believed(index))
            await feed.aclose()
            publisher.socket.close(linger=0)

    uvloop.run(follow())


async def test_nothing_is_opened_for_nobody():
    feed = KvEventFeed(PrefixIndex())
    await feed.start()
    assert feed.counters == feed.blocks == {}
    await feed.aclose()


async def test_what_is_no_endpoint_is_an_error():
    feed = KvEventFeed(PrefixIndex())
    feed.watch(Replica("a", "http://a"), "nonsense://x")
    with pytest.raises(OSError, match=r"nonsense://x|not supported|Invalid"):
        await feed.start()
    await feed.aclose()


def entry(**fields):
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("entries", "base"),
    [
        ({}, None),
        ({"tuned": entry(parent="m"), "m": entry(parent=None), "n": entry(parent=None)}, "m"),
        ({"m": entry(id="m")}, "m"),
        ({"m": entry(parent=5)}, "m"),
        ({"tuned": entry(parent="m")}, None),
    ],
)
def test_names_of_models(entries, base):
    replica = Replica("a", "http://a")
    names = Names(replica)
    assert names(None) is None
    replica.model_entries = entries
    assert names(None) == names(None) == base
    assert names("tuned") == "tuned"
