"""Many tasks, on several processes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING

from loadgen.simulate.task import perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadgen.simulate.results import Row
    from loadgen.simulate.task import Task


def run_tasks(tasks: Sequence[Task], jobs: int, done: Callable[[Row], None]) -> list[Row]:
    """Do all ``tasks``.

    Args:
        tasks: What to do.
        jobs: Processes; with one, or one task, all is done in this one.
        done: Told of each row as it comes, in whatever order.

    Returns:
        The rows, in the order of the tasks. They do not depend on ``jobs``.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        rows = []
        for task in tasks:
            rows.append(perform(task))
            done(rows[-1])
        return rows
    context = get_context("spawn")
    before = set(active_children())
    with ProcessPoolExecutor(jobs, context, initializer=_begin_worker) as pool:
        with _ctrl_c_ignored():  # workers inherit that: it is for this process to end them
            futures = [pool.submit(perform, task) for task in tasks]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            # the pool would let them end what they are at, which may take minutes
            for worker in set(active_children()) - before:
                worker.terminate()
            raise
        return [future.result() for future in futures]


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _begin_worker() -> None:
    """End with the parent, however that ends."""
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
