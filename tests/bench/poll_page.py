"""``python -m tests.bench.poll_page``: what it costs the router to read a replica's load.

Two figures: finding the wanted lines on a page of 100 KB that is in memory (the goal: at most
0.3 ms of CPU), and a whole look with it: request, socket, HTTP, page, sample. The page is served
by another process, so that only the router's side is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import uvloop
from rich.console import Console
from rich.table import Table

from router.config.structs import PollingConfig
from router.core.fleet import FleetState
from router.engines.catalogue import VLLM
from router.polling.client import ReplicaClient
from router.polling.load import Load
from router.polling.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PAGE_BYTES = 100_000
REAL_PAGE = Path(__file__).parents[1] / "router" / "engines" / "pages" / "vllm_0_32.txt"
BOUNDS = (*(m * 10**e for e in range(-3, 3) for m in (1.0, 2.5, 5.0, 7.5)), "+Inf")
ROUNDS = 5
REPLICAS = 4
LOOKS = 200
PARSES = 200


class Row(NamedTuple):
    """One figure."""

    what: str
    page_bytes: int
    cpu_ms: float
    """CPU of this process, the best of some rounds."""

    @property
    def ms_per_100_kb(self) -> float | None:
        """The same for a page of 100 KB; None where there is no page."""
        return self.cpu_ms * 100_000 / self.page_bytes if self.page_bytes else None


def vllm_page(size_bytes: int = PAGE_BYTES) -> bytes:
    """A page of vLLM 0.32 with the buckets of its histograms, repeated up to ``size_bytes``.

    The gauges stand at its head and the block size at its end, as on the real one.
    """
    lines = REAL_PAGE.read_text().splitlines(keepends=True)
    tail = next(i for i, line in enumerate(lines) if line.startswith("# HELP vllm:cache_config"))
    head, end = "".join(lines[:tail]), "".join(lines[tail:])
    histograms: list[str] = []
    size, number = len(head) + len(end), 0
    while size < size_bytes:
        name = f"vllm:histogram_{number}_seconds"
        labels = 'engine="0",model_name="tiny"'
        text = f"# HELP {name} A histogram.\n# TYPE {name} histogram\n" + "".join(
            f'{name}_bucket{{engine="0",le="{bound}",model_name="tiny"}} {number}.0\n'
            for bound in BOUNDS
        )
        text += f"{name}_count{{{labels}}} {number}.0\n{name}_sum{{{labels}}} 0.5\n"
        histograms.append(text)
        size, number = size + len(text), number + 1
    return (head + "".join(histograms) + end).encode()


def old_names(page: bytes) -> bytes:
    """The same page as an older vLLM writes it: each new name is looked for in vain first."""
    for name in (b"kv_cache_usage_perc", b"prefix_cache_queries", b"prefix_cache_hits"):
        page = page.replace(b"vllm:" + name, b"vllm:gpu_" + name.removeprefix(b"kv_"))
    return page.replace(b"vllm:engine_sleep_state", b"vllm:something_else")


def run() -> list[Row]:
    """Measure; the first row is the one that the goal is about."""
    page = vllm_page()
    rows = [
        _parsing("find the lines on a vLLM page", page),
        _parsing("same, 300 KB", vllm_page(300_000)),
        _parsing("same, names of an older vLLM", old_names(page)),
    ]
    with page_server() as url:
        rows.append(Row("a look at the load, page and all", len(page), _load_look_ms(url)))
        rows.append(Row("a look at the health", 0, _health_look_ms(url)))
        rows.append(Row("a look on average, 4 replicas at their usual pace", 0, _paced_ms(url)))
    return rows


def _parsing(what: str, page: bytes) -> Row:
    assert VLLM.gaps(VLLM.parse(page)) == (), "the page lacks what is looked for"

    def look() -> None:
        VLLM.gaps(VLLM.parse(page))
        VLLM.unfit(page)

    return Row(what, len(page), _best_ms(look))


def _best_ms(act: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(PARSES):
            act()
        best = min(best, (time.process_time() - start) / PARSES * 1000)
    return best


def _load_look_ms(url: str) -> float:
    async def measured() -> float:
        async with ReplicaClient(url, timeout_s=5) as client:
            return await _best_look_ms(Load(client, VLLM).look)

    return uvloop.run(measured())


def _health_look_ms(url: str) -> float:
    async def measured() -> float:
        async with ReplicaClient(url, timeout_s=5) as client:
            return await _best_look_ms(lambda: client.get("/health"))

    return uvloop.run(measured())


def _paced_ms(url: str) -> float:
    """Between looks the caches grow cold and the process sleeps, which the tight loops hide."""

    async def measured() -> float:
        fleet = FleetState()
        poller = Poller(PollingConfig(), fleet)
        for number in range(REPLICAS):
            poller.watch(fleet.add(f"r{number}", url), "vllm")
        await poller.start()
        await asyncio.sleep(1)
        best = float("inf")
        for _ in range(ROUNDS):
            start, looks = time.process_time(), poller.counters.looks
            await asyncio.sleep(1)
            spent = time.process_time() - start
            best = min(best, spent / (poller.counters.looks - looks) * 1000)
        await poller.aclose()
        return best

    return uvloop.run(measured())


async def _best_look_ms(look: Callable[[], Awaitable[object]]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(LOOKS):
            await look()
        best = min(best, (time.process_time() - start) / LOOKS * 1000)
    return best


@contextmanager
def page_server() -> Iterator[str]:
    """A process that serves the page; yields its URL."""
    command = [sys.executable, "-m", "tests.bench.poll_page", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def serve() -> None:
    """Answer every request, most of them with nothing; print the URL."""
    answers = {b"/metrics": vllm_page(), b"/v1/models": b'{"data":[{"id":"tiny"}]}'}

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            body = answers.get(data.split(b" ", 2)[1], b"")
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)

    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    shown = Table("what", "page", "CPU ms", "CPU ms per 100 KB", title="reading a replica's load")
    for row in rows:
        per_100_kb = row.ms_per_100_kb
        shown.add_row(
            row.what,
            f"{row.page_bytes / 1000:.0f} KB" if row.page_bytes else "-",
            f"{row.cpu_ms:.3f}",
            "-" if per_100_kb is None else f"{per_100_kb:.3f}",
        )
    return shown


def main() -> None:
    """Print the figures, or be the page server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="be the page server")
    if parser.parse_args().serve:
        uvloop.run(serve())
    else:
        Console().print(table(run()))


if __name__ == "__main__":
    main()
