"""Many simulations on several processes, in an order that lets later ones build on earlier."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias

from loadgen.simulate.task import perform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadgen.simulate.task import Finished, Task

Results: TypeAlias = Mapping[str, "Finished"]
Submit: TypeAlias = Callable[["Task"], Future["Finished"]]


@dataclass(slots=True, frozen=True)
class Step:
    """A task that may depend on what others have found."""

    key: str
    """Its name; no other step has it."""

    make: Callable[[Results], Task]
    """Makes the task; the results of ``needs`` are there then."""

    needs: tuple[str, ...] = ()
    """Steps that must have finished."""


def run_steps(
    steps: Sequence[Step],
    jobs: int,
    done: Callable[[str, Finished], None],
    known: Results | None = None,
) -> dict[str, Finished]:
    """Do all ``steps``.

    Args:
        steps: What to do, the first that can be done first.
        jobs: Processes; with one, or one step, all is done in this one.
        done: Told of each result as it comes, in whatever order.
        known: Results of earlier runs, on which steps may depend too.

    Returns:
        The results by key, those in ``known`` too. They do not depend on ``jobs``.

    Raises:
        ValueError: A step needs what is neither known nor made by any step.
    """
    results = dict(known or {})
    left = {step.key: step for step in steps}
    jobs = min(jobs, len(left))
    running: dict[Future[Finished], str] = {}
    with _workers(jobs) as submit:
        while left or running:
            for step in list(left.values()):
                if len(running) >= max(jobs, 1):
                    break
                if all(key in results for key in step.needs):
                    del left[step.key]
                    running[submit(step.make(results))] = step.key
            if not running:
                raise ValueError(f"never to be done: {', '.join(left)}")
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                results[key] = future.result()
                done(key, results[key])
    return results


@contextmanager
def _workers(jobs: int) -> Iterator[Submit]:
    if jobs <= 1:
        yield _here
        return
    before = set(active_children())
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin_worker) as pool:

        def submit(task: Task) -> Future[Finished]:
            with _ctrl_c_ignored():  # workers inherit that: it is for this process to end them
                return pool.submit(perform, task)

        try:
            yield submit
        except BaseException:
            # the pool would let them end what they are at, which may take minutes
            for worker in set(active_children()) - before:
                worker.terminate()
            raise


def _here(task: Task) -> Future[Finished]:
    future: Future[Finished] = Future()
    future.set_result(perform(task))
    return future


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
