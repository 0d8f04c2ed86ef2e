"""Start and stop the processes of a bench."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 5.0


@dataclass(slots=True, frozen=True)
class Cores:
    """Who runs where: the router alone on one core, all the rest on the others.

    Pinned, a router is not interrupted by the replicas and the client that its own writes wake,
    and figures repeat better, which helps to compare two states of one router. But a router with
    several threads then runs as nobody runs it: sglang-router needs a third less for a chunk.
    """

    router: frozenset[int] | None
    others: frozenset[int] | None

    @classmethod
    def split(cls, *, pin: bool) -> Cores:
        """The split of this machine; no split at all when it has one core or ``pin`` is off."""
        first, *others = sorted(os.sched_getaffinity(0))
        if not pin or not others:
            return cls(None, None)
        return cls(frozenset({first}), frozenset(others))


@contextmanager
def on(cores: frozenset[int] | None) -> Iterator[None]:
    """Processes started in the block stay on ``cores``."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class BenchError(RuntimeError):
    """A process of the bench did not do what it should; the message says which and what."""


def free_port() -> int:
    """A TCP port that was free a moment ago, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    name: str, command: Sequence[str], log: Path, cores: frozenset[int] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """``command`` on ``cores`` for the time of the block; its output goes to ``log``."""
    with log.open("wb") as output, on(cores):
        process = subprocess.Popen(list(command), stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        stop(process)
    if process.returncode not in {0, -15, 143}:
        raise BenchError(f"{name} ended with status {process.returncode}: {tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it end when it does not."""
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        process.returncode = -15  # slow to stop, which is not what is measured here


def answers(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``GET path`` is answered with 200.

    Raises:
        BenchError: The process ended, or the deadline passed.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    deadline_s = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise BenchError(f"{process.args} ended with {process.returncode}: {tail(log)}")
        # Refused or reset means not up yet; the deadline decides.
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=2) as probe,
        ):
            probe.sendall(request.encode())
            if probe.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.05)
    raise BenchError(f"{process.args} was not ready after {START_DEADLINE_S:.0f} s: {tail(log)}")


def tail(log: Path) -> str:
    """The last lines of a log, for a message."""
    return " | ".join(log.read_text(errors="replace").splitlines()[-3:])


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules under this very Python."""
    return [sys.executable, "-m", module, *arguments]
