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

from loadgen.simulate.task import Task, perform

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from loadgen.simulate.task import Finished

Results: TypeAlias = Mapping[str, "Finished"]
Submit: TypeAlias = Callable[["Task"], Future["Finished"]]


@dataclass(slots=True, frozen=True)
class Step:
    """A task that may depend on what others have found."""

    key: str
    """Its name; no other step has it."""

    make: Callable[[Results], Task | Finished | None]
    """Makes the task, once ``needs`` are done; answers with a result that is known already, or
    with None where it is not worth doing after all."""

    needs: tuple[str, ...] = ()
    """Steps that must be done before."""


def run_steps(
    steps: Sequence[Step],
    jobs: int,
    done: Callable[[str, Finished | None], None],
) -> dict[str, Finished]:
    """Do all ``steps``.

    Args:
        steps: What to do, the first that can be done first.
        jobs: Processes; with one, or one step, all is done in this one.
        done: Told of each step that is done, in whatever order; without a result where there is
            nothing to do.

    Returns:
        The results by key. They do not depend on ``jobs``.

    Raises:
        ValueError: A step needs one that there is not, or itself.
    """
    missing = {key for step in steps for key in step.needs} - {step.key for step in steps}
    if missing:
        raise ValueError(f"needed, but nobody does them: {', '.join(sorted(missing))}")
    jobs = min(jobs, len(steps))
    results: dict[str, Finished] = {}
    left = {step.key: step for step in steps}
    running: dict[Future[Finished], str] = {}

    def end(key: str, finished: Finished | None) -> None:
        if finished is not None:
            results[key] = finished
        done(key, finished)

    with _workers(jobs) as submit:
        while left or running:
            busy = set(running.values())
            step = None
            if len(running) < max(jobs, 1):
                step = next((each for each in left.values() if _ready(each, left, busy)), None)
            if step is not None:
                del left[step.key]
                task = step.make(results)
                if isinstance(task, Task):
                    running[submit(task)] = step.key
                else:
                    end(step.key, task)
            elif running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    end(running.pop(future), future.result())
            else:
                raise ValueError(f"never to be done: {', '.join(left)}")
    return results


def _ready(step: Step, left: Mapping[str, Step], busy: Collection[str]) -> bool:
    return not any(key in left or key in busy for key in step.needs)


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
