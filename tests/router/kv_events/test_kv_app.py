"""A whole router whose replica publishes its KV events."""

import asyncio

import msgspec
import zmq
import zmq.asyncio

from router.api.prefix import BLOCK_IDS, id_keys, root
from router.app import App
from router.config.structs import Config, ReplicaConfig

IDS = list(range(BLOCK_IDS))
EVENT = ["BlockStored", list(range(16)), None, IDS, 16, None, "GPU", "m"]
KEYS = id_keys([*IDS, 0], root(None, "m"))


async def test_the_router_follows_what_its_configuration_names():
    with zmq.asyncio.Context() as context:
        socket = context.socket(zmq.XPUB)
        socket.bind("tcp://127.0.0.1:*")
        endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        replica = ReplicaConfig(url="http://127.0.0.1:9", name="a", kv_events=endpoint)
        config = Config(listen=["127.0.0.1:0"], admin="127.0.0.1:0", replicas=[replica])
        app = App(config, asyncio.get_running_loop())
        await app.start()
        index = app.dispatcher.prefix_index
        try:
            async with asyncio.timeout(10):
                assert await socket.recv() == b"\x01"
                payload = msgspec.msgpack.encode([0.0, [EVENT]])
                await socket.send_multipart([b"kv", bytes(8), payload])
                while not index.match(KEYS, BLOCK_IDS):  # noqa: ASYNC110 - a socket signals to nobody
                    await asyncio.sleep(0.002)
            assert app.kv_events.blocks == {"a": 16}
        finally:
            await app.stop(0)
            socket.close(linger=0)
