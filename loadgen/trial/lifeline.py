"""Processes that end when the one that started them does, however that one ended.

Each child inherits the reading end of a pipe and waits for its end in a thread of its own. The
writing end is nowhere but in the parent; when the parent is gone the kernel closes it, and the
child kills itself. This works on every POSIX system, unlike PR_SET_PDEATHSIG, which besides looks
at the thread that forked and needs code to run between fork and exec.

As a module it is what runs in the child: ``python -m loadgen.trial.lifeline FD ARGUMENT…`` is
``pointsman ARGUMENT…`` tied to the lifeline FD.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from router.cli.root import run

if TYPE_CHECKING:
    from collections.abc import Sequence


class Lifeline:
    """The parent's end. When it is closed, all children that hang on it die at once."""

    def __init__(self) -> None:
        self.child_fd, self._parent_fd = os.pipe()

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line of ``pointsman`` with ``arguments``, hanging on this lifeline.

        The child must inherit ``child_fd`` under its own number.
        """
        # -P: a folder named `policies` or `router` where we were called must not shadow ours.
        return [sys.executable, "-P", "-m", __name__, str(self.child_fd), *arguments]

    def close(self) -> None:
        """Let go of it."""
        os.close(self.child_fd)
        os.close(self._parent_fd)


def main(arguments: Sequence[str]) -> int:
    """Run a command line of ``pointsman``; die when the lifeline is cut.

    Args:
        arguments: The lifeline's file descriptor, then those of ``pointsman``.

    Returns:
        The exit status.
    """
    lifeline, *command = arguments
    threading.Thread(target=_die_with_parent, args=(int(lifeline),), daemon=True).start()
    return run(command)


def _die_with_parent(child_fd: int) -> None:
    with suppress(OSError):  # a pipe that cannot be read is as good as cut
        os.read(child_fd, 1)  # nothing is ever written: it returns when the parent is gone
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
