"""``pointsman serve`` as a real process, with all its ports chosen by the kernel."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.raw_client import Answer, raw_client, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 20.0
DRAIN_DEADLINE_S = 10.0
LISTENING = "pointsman: listening on "
ADMIN = "pointsman: admin on "


async def eventually(look: Callable[[], Awaitable[bool]], pause_s: float = 0.01) -> None:
    """Look again and again until ``look`` says yes; the caller sets the deadline."""
    while True:
        if await look():
            return
        await asyncio.sleep(pause_s)


class ServeProcess:
    """One running router.

    Args:
        config: The configuration, as plain data; ``listen`` and ``admin`` are added.
        folder: Where to write it.
        arguments: Further arguments of ``pointsman serve``.
    """

    def __init__(self, config: dict[str, Any], folder: Path, arguments: Sequence[str] = ()) -> None:
        self._config = {"listen": ["127.0.0.1:0"], "admin": "127.0.0.1:0"} | config
        self._folder = folder
        self._arguments = list(arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._told_to_stop = False
        self.log: list[str] = []
        """All lines of its standard error."""
        self.urls: list[str] = []
        """Where it listens, in the order of ``listen``."""
        self.admin_url = ""

    @property
    def url(self) -> str:
        """The first listener."""
        return self.urls[0]

    @property
    def authority(self) -> str:
        """Host and port of the first listener."""
        return self.url.partition("://")[2]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def start(self, *, ready: bool = True) -> None:
        """Start it and wait until it listens, and, unless told otherwise, until it is ready."""
        path = self._folder / "pointsman.yaml"
        path.write_text(json.dumps(self._config))  # JSON is YAML
        command = str(Path(sys.executable).parent / "pointsman")
        self._process = await asyncio.create_subprocess_exec(
            command,
            "serve",
            "--config",
            str(path),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read_log())
        await self._until(lambda: self.admin_url and len(self.urls) == len(self._config["listen"]))
        if ready:
            async with asyncio.timeout(START_DEADLINE_S):
                await eventually(self._is_ready)

    async def stop(self) -> None:
        """End it by SIGTERM; it must exit with 0 and have said nothing that is an error."""
        if self._process.returncode is None and not self._told_to_stop:
            self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                status = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"did not stop on SIGTERM: {self.tail()}") from None
        finally:
            await self._reader
        assert status == 0, f"exit status {status}: {self.tail()}"
        troubles = [line for line in self.log if "Traceback" in line or "never retrieved" in line]
        assert not troubles, self.tail()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._told_to_stop = self._told_to_stop or number is signal.SIGTERM
        self._process.send_signal(number)

    def tail(self) -> str:
        """The end of its log, for messages."""
        return "\n".join(self.log[-40:])

    async def get(self, path: str) -> Answer:
        """``GET path`` of the router itself."""
        async with raw_client(self.url) as client:
            client.write(request("GET", path, None, "Connection: close"))
            return await client.answer()

    async def fleet(self) -> dict[str, Any]:
        """The admin plane's ``/fleet``."""
        return (await self._admin("/fleet")).json

    async def metrics(self) -> str:
        """The admin plane's ``/metrics``."""
        return (await self._admin("/metrics")).body.decode()

    async def drained(self) -> None:
        """Wait until nothing of any request, connection or buffer is left.

        Raises:
            AssertionError: Something is left at the deadline; the message says what.
        """
        left: dict[str, Any] = {}

        async def nothing_left() -> bool:
            left.clear()
            left.update(_left(await self.fleet()))
            return not left

        try:
            async with asyncio.timeout(DRAIN_DEADLINE_S):
                await eventually(nothing_left)
        except TimeoutError:
            raise AssertionError(f"not drained: {left}") from None

    async def _is_ready(self) -> bool:
        return (await self.get("/ready")).status == 200

    async def _admin(self, path: str) -> Answer:
        async with raw_client(self.admin_url) as client:
            client.write(request("GET", path, None, "Connection: close"))
            return await client.answer()

    async def _read_log(self) -> None:
        while line := await self._process.stderr.readline():
            text = line.decode(errors="replace").rstrip("\n")
            self.log.append(text)
            if text.startswith(LISTENING):
                self.urls.append(_as_url(text.removeprefix(LISTENING)))
            elif text.startswith(ADMIN):
                self.admin_url = text.removeprefix(ADMIN)
            self._news.set()
        self._news.set()

    async def _until(self, condition: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                while not condition():
                    assert not self._reader.done(), f"ended at its start: {self.tail()}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"did not start: {self.tail()}") from None


def _as_url(text: str) -> str:
    return "http+unix://" + text.removeprefix("unix:") if text.startswith("unix:") else text


def _left(fleet: dict[str, Any]) -> dict[str, Any]:
    """What of ``/fleet`` should be zero and is not."""
    counts = {
        "open_requests": fleet["open_requests"],
        "buffered_bytes": fleet["buffered_bytes"],
        "continuation_bytes": fleet["continuation_bytes"],
        "connections.client": fleet["connections"]["client"],
    }
    for replica in fleet["replicas"]:
        for key in ("in_flight", "in_flight_prompt_tokens", "in_flight_output_tokens"):
            counts[f"{replica['name']}.{key}"] = replica[key]
    return {key: value for key, value in counts.items() if value != 0}
