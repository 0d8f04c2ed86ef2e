"""The sans-I/O core: no sockets, no asyncio, no clock; ``now`` (monotonic seconds) comes in."""
