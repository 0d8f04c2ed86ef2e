"""What a replica says before it resets a connection in the middle of an upload.

Sending then fails, and the transport closes without reading the answer that is there. A second
handle of the socket outlives the transport, so that the answer can still be read.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator


def second_handle(transport: asyncio.Transport) -> socket.socket | None:
    """A handle of the transport's connection that outlives it; None: it is no socket."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return None
    spare = socket.socket(fileno=os.dup(sock.fileno()))
    spare.setblocking(False)
    return spare


def leftovers(sock: socket.socket, limit_bytes: int) -> Iterator[bytes]:
    """What can still be read of a broken connection, up to ``limit_bytes``."""
    left = limit_bytes
    while left > 0:
        try:
            data = sock.recv(left)
        except OSError:  # nothing more: the error that broke the connection, or would-block
            return
        if not data:
            return
        left -= len(data)
        yield data
