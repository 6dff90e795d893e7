"""Whether a program may be forked at the point where it runs its host, and what its descriptors are.

A forked process must be what a booted one is. Some of what a program has begun does not survive a fork (threads, child
processes, tasks of an event loop), and some would be shared by all children (connections, databases, positions in files).
`why_unforkable` looks for all of these; when it finds one, the host boots processes instead and logs the reason. Whatever it
does not know counts as unsafe: to boot a process that could have been forked costs time, to fork an unsafe one breaks it.

Called by `child.template`, once, in the event loop of the program.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meshhost.hosting.processes.cpython import awaited_by, waits_for_files

__all__ = ["descriptors", "files_to_open_again", "why_unforkable"]

_MAX_NAMED = 5
_ENDING_SECONDS = 0.2
# Character devices without a state that processes could share.
_PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts/")


def why_unforkable(
    loop: asyncio.AbstractEventLoop,
    parked: Iterable[asyncio.Task[Any]],
    known: Iterable[int],
    *,
    ending_seconds: float = _ENDING_SECONDS,
) -> str | None:
    """Why a child forked now would not be what a booted process is, as text for people; None when it may be forked.

    `parked` are tasks that wait forever, `known` the descriptors that a child closes or may share. A thread that is just ending
    is waited for, for at most `ending_seconds`.
    """
    if names := _other_threads(ending_seconds):
        return f"program started threads while it was imported: {_listed(names)}"
    if type(loop) is not asyncio.SelectorEventLoop:
        return f"program runs on an event loop of another kind: {type(loop).__qualname__}"
    if names := _other_tasks(loop, parked):
        return f"program has other tasks in its event loop: {_listed(names)}"
    if _has_children():
        return "program started processes while it was imported"
    if names := [*filter(None, map(_why_not_shared, sorted(descriptors() - frozenset(known))))]:
        return f"program holds what cannot be shared: {_listed(names)}"
    if waits_for_files(loop) or _waits_for_signals():
        return "program waits for files or signals in its event loop"
    return None


def descriptors() -> frozenset[int]:
    """All descriptors that are open in this process."""
    found = frozenset(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are what is wanted
    return frozenset(number for number in found if _is_open(number))


def files_to_open_again(candidates: Iterable[int]) -> list[int]:
    """Those of the descriptors that are files opened for reading: each child needs a position of its own in them."""
    return [
        descriptor
        for descriptor in candidates
        if stat.S_ISREG(os.fstat(descriptor).st_mode)
        and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    ]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMED] + (["…"] if len(names) > _MAX_NAMED else []))


def _other_threads(seconds: float) -> list[str]:
    """The names of all threads but this one, after waiting shortly for those that are just ending."""
    end = time.monotonic() + seconds
    while (names := _thread_names()) and time.monotonic() < end:
        time.sleep(seconds / 10)
    return names


def _thread_names() -> list[str]:
    # From the kernel: libraries start threads that Python does not know.
    own = threading.get_native_id()
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    for task in Path("/proc/self/task").iterdir():
        if (number := int(task.name)) != own:
            with contextlib.suppress(OSError):
                names.append(known.get(number) or (task / "comm").read_text().strip())
    return names


def _other_tasks(loop: asyncio.AbstractEventLoop, parked: Iterable[asyncio.Task[Any]]) -> list[str]:
    """The names of tasks with work of their own: not this one, not a parked one, and none that only waits for one of these."""
    idle: set[object] = {asyncio.current_task(), *parked}
    others = asyncio.all_tasks(loop) - idle
    # Tasks that wait for an idle one are idle too, and so on. Of a task that gathers several, those with work remain.
    while waiting := {task for task in others if idle.intersection(awaited_by(task))}:
        others -= waiting
        idle |= waiting
    return sorted(task.get_name() for task in others)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _waits_for_signals() -> bool:
    # A loop with signal handlers sets the wakeup descriptor, which can only be read by setting it.
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor != -1


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:  # that of the listing itself
        return False
    return True


def _why_not_shared(descriptor: int) -> str | None:
    """The name of the descriptor when two processes must not share it; None when they may."""
    mode = os.fstat(descriptor).st_mode
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - not always a path
    if stat.S_ISDIR(mode) or (stat.S_ISCHR(mode) and name.startswith(_PLAIN_DEVICES)):
        return None
    if not stat.S_ISREG(mode):
        return name
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return None if _can_be_opened_again(descriptor) else name
    # Each write to a log file goes to its end. Other files have a position that would be shared, or locks, as databases do.
    return None if flags & os.O_APPEND else name


def _can_be_opened_again(descriptor: int) -> bool:
    try:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
