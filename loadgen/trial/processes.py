"""The processes of a trial: started, watched, and ended whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, STDOUT
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self, TypeVar

from loadgen.trial.errors import TrialError
from loadgen.trial.lifeline import Lifeline

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from types import TracebackType

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 5.0

_KEPT_LINES = 20
_TOLD_LINES = 3
_LONGEST_LINE_BYTES = 1 << 20
_Result = TypeVar("_Result")


class ChildProcess:
    """One ``pointsman`` command under way; made by :meth:`Processes.start`.

    Args:
        name: What to call it in errors.
        process: The process; its output is a pipe.
        ended_unasked: Is told when it ends though nobody wanted it to.
    """

    def __init__(
        self, name: str, process: Process, ended_unasked: Callable[[TrialError], None]
    ) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._ended_unasked = ended_unasked
        self._asked = False
        self._error: TrialError | None = None
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._news = asyncio.Event()
        self._watching = asyncio.create_task(self._watch())

    async def told(self, beginning: str) -> str:
        """Wait for a line of its output that starts with ``beginning``; return that line's rest.

        Raises:
            TrialError: It ended, or the deadline passed, before it wrote such a line.
        """
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                while (rest := self._find(beginning)) is None:
                    if self._error is not None:
                        raise self._error
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            msg = f"{self.name} was not ready after {START_DEADLINE_S:g} s{self._tail()}"
            raise TrialError(msg) from None
        return rest

    async def kill(self) -> None:
        """SIGKILL it, as a machine that fails would."""
        self._signal(signal.SIGKILL)
        await self._watching

    async def stop(self) -> None:
        """Ask it to end, and make it end when it does not."""
        self._signal(signal.SIGTERM)
        await asyncio.wait([self._watching], timeout=STOP_DEADLINE_S)
        self._signal(signal.SIGKILL)
        await self._watching

    def _signal(self, number: signal.Signals) -> None:
        self._asked = True
        with suppress(ProcessLookupError):  # it has ended by itself
            self._process.send_signal(number)

    async def _watch(self) -> None:
        output = self._process.stdout
        while output is not None and (data := await output.readline()):
            self._last_lines.append(data.decode(errors="replace").rstrip())
            self._news.set()
        status = await self._process.wait()
        self._error = TrialError(f"{self.name} ended with status {status}{self._tail()}")
        self._news.set()
        if not self._asked:
            self._ended_unasked(self._error)

    def _find(self, beginning: str) -> str | None:
        found = (line for line in self._last_lines if line.startswith(beginning))
        line = next(found, None)
        return None if line is None else line.removeprefix(beginning)

    def _tail(self) -> str:
        return "".join(f" | {line}" for line in list(self._last_lines)[-_TOLD_LINES:])


class Processes:
    """All processes of a trial; on leaving the context every one of them is gone."""

    def __init__(self) -> None:
        self._lifeline = Lifeline()
        self._children: list[ChildProcess] = []
        self._trouble: TrialError | None = None
        self._one_ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await asyncio.gather(*(child.stop() for child in self._children))
        finally:
            self._lifeline.close()

    async def start(
        self, name: str, arguments: Sequence[str], *, stdin: bytes = b""
    ) -> ChildProcess:
        """Start ``pointsman`` with ``arguments``.

        Args:
            name: What to call it in errors.
            arguments: The command and its options.
            stdin: What it can read; a configuration, not more than a pipe holds.
        """
        starting = asyncio.ensure_future(self._spawn(arguments, stdin))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A process that is half started can neither be forgotten nor be killed.
            self._children.append(ChildProcess(name, await starting, self._note))
            raise
        child = ChildProcess(name, process, self._note)
        self._children.append(child)
        return child

    async def unless_one_ends(self, work: Coroutine[None, None, _Result]) -> _Result:
        """Do ``work``, but no longer than every process lives that should.

        Raises:
            TrialError: One ended unasked.
        """
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._one_ended.wait())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if self._trouble is not None:
                raise self._trouble
            return await working
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.wait({working, watching})

    async def _spawn(self, arguments: Sequence[str], stdin: bytes) -> Process:
        with _pipe_with(stdin) as reading_end:
            return await asyncio.create_subprocess_exec(
                *self._lifeline.command(arguments),
                stdin=reading_end,
                stdout=PIPE,
                stderr=STDOUT,
                limit=_LONGEST_LINE_BYTES,
                pass_fds=(self._lifeline.child_fd,),
                start_new_session=True,  # Ctrl-C is for us: we end them, in our own order
            )

    def _note(self, error: TrialError) -> None:
        self._trouble = error
        self._one_ended.set()


@contextmanager
def _pipe_with(data: bytes) -> Iterator[int]:
    """A pipe that holds ``data`` and then ends.

    A real one: uvloop's PIPE is a socket, which cannot be opened as /dev/stdin.
    """
    reading_end, writing_end = os.pipe()
    try:
        with os.fdopen(writing_end, "wb", buffering=0) as pipe:
            pipe.write(data)
        yield reading_end
    finally:
        os.close(reading_end)
