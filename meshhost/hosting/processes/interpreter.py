"""Starts a Python interpreter as a child of this process: how an agent's process is booted, and how a template is.

The new interpreter gets the numbers of its inherited descriptors (a socket to the host, a pipe for stack dumps) as arguments
and runs one line of code, which imports the module of `child/` that it is to run. Used by `process` and `template`.
"""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from meshhost.hosting.processes.cpython import interpreter_flags

__all__ = ["Begin", "Reapable", "begin_interpreter", "boot"]

_CHILD = "from meshhost.hosting.processes.child.boot import main; main()"


class Reapable(Protocol):
    """A child of this process, with the members of `subprocess.Popen` that are used."""

    @property
    def pid(self) -> int:
        """Its number. The system does not give it to another process before `wait` has returned."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None until `wait` has returned."""

    def wait(self) -> int:
        """Wait for its end and return the exit code."""


Begin = Callable[[int, int], Awaitable[tuple[Reapable, int]]]
"""Starts a process, given the descriptors of its socket and of its pipe for stack dumps; returns it with a pidfd.

Raises OSError.
"""


async def boot(sock: int, dump_fd: int) -> tuple[Reapable, int]:
    """A `Begin`: a new interpreter that runs the program again."""
    return begin_interpreter(_CHILD, sock, dump_fd)


def begin_interpreter(code: str, *descriptors: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start an interpreter that runs this code with these descriptors as its arguments; returns it with a pidfd.

    Raises OSError.
    """
    # Popen rather than asyncio's child watcher: that would reap the process at once, but until it is reaped its number
    # stands for its process group, which has to be killed first.
    popen = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, *interpreter_flags(), "-c", code, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        return popen, os.pidfd_open(popen.pid)
    except OSError:  # no descriptor left
        popen.kill()
        popen.wait()
        raise
