"""Every private part of CPython's standard library that processes of agents use, in one place.

A template forks while its event loop runs: it stands inside the program's `asyncio.run(host.run())`, and cannot leave that
without unwinding the program. The public API has no word for a child that is inside a loop which is not its own, hence this
module. Each function says what it is for, how long Python has had what it uses, and what breaks when a Python lacks it.
`tests/unit/hosting/test_process_cpython.py` proves, on the Python that runs it, that each is needed and does what it says.

Used by `interpreter` in the host, and by `child.fork_safety`, `child.fork` and `child.template` inside.
"""

import asyncio
import atexit
import functools
import signal
import subprocess
from collections.abc import Iterator
from typing import Protocol

__all__ = [
    "awaited_by",
    "close_loop_of_parent",
    "forget_exit_functions",
    "interpreter_flags",
    "leave_loop",
    "loop_descriptors",
    "run_exit_functions",
    "waits_for_files",
]


def interpreter_flags() -> list[str]:
    """The flags of this interpreter, such as -O, -W and -X, as arguments.

    `subprocess._args_from_interpreter_flags`, since Python 3.4; multiprocessing uses it for the same purpose. Without it a
    child would run without the -O, -W error or -X dev that its host runs with.
    """
    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]  # noqa: SLF001


def loop_descriptors(loop: asyncio.AbstractEventLoop) -> frozenset[int]:
    """The descriptors that belong to the event loop itself: its selector and its pipe to itself.

    `_selector`, `_ssock` and `_csock` of `BaseSelectorEventLoop`, since Python 3.4. A loop without them has no descriptors of
    its own here, so that the descriptors it holds are found to be foreign, and the program is not forked but booted.
    """
    return frozenset(part.fileno() for part in _parts(loop))


def waits_for_files(loop: asyncio.SelectorEventLoop) -> bool:
    """Whether the program waits for files in the loop, besides the loop's own pipe to itself.

    `_selector`, since Python 3.4. Without it an AttributeError would end the template, and its error would be reported.
    """
    return len(loop._selector.get_map() or ()) > 1  # type: ignore[attr-defined]  # noqa: SLF001


def awaited_by(task: asyncio.Task[object]) -> Iterator[object]:
    """What the task waits for now: a task, or a gathering future and all that it gathers.

    `Task._fut_waiter` and `_GatheringFuture._children`, since Python 3.4. Without them a task that waits for the host would
    count as one with work of its own, and the program is not forked but booted.
    """
    waiter = getattr(task, "_fut_waiter", None)
    yield waiter
    yield from getattr(waiter, "_children", ())


def leave_loop(loop: asyncio.AbstractEventLoop) -> None:
    """In a forked child: be in no task and no event loop any more, so that it can run one of its own.

    `asyncio._set_running_loop` and `asyncio._leave_task`: part of `asyncio.__all__`, documented for those who implement event
    loops. Without them the task of the parent stays current in the child; since Python 3.14, where the current task belongs to
    the thread and not to the loop, no other task could run in this thread.
    """
    if (task := asyncio.current_task(loop)) is not None:
        # Since Python 3.12 a fork resets the running loop, but not the task, which can only be left inside of its loop.
        asyncio._set_running_loop(loop)  # noqa: SLF001
        asyncio._leave_task(loop, task)  # noqa: SLF001
    asyncio._set_running_loop(None)  # noqa: SLF001
    signal.set_wakeup_fd(-1)
    # `asyncio.Runner` takes SIGINT over, and the next one only does so from the default handler.
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, functools.partial) and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: TID251 - as a process begins


def close_loop_of_parent(loop: asyncio.AbstractEventLoop) -> None:
    """In a forked child: close what belongs to the parent's event loop, without any effect on the parent.

    Not `loop.close()`: that unregisters the pipe from the selector, and since both processes share one epoll instance of the
    kernel, the parent's loop could not be woken by other threads any more. `_selector`, `_ssock`, `_csock` since Python 3.4;
    `_closed` makes code that still uses the old loop fail with "Event loop is closed" instead of waiting forever.
    """
    for part in _parts(loop):
        part.close()
    loop._closed = True  # type: ignore[attr-defined]  # noqa: SLF001


def forget_exit_functions() -> None:
    """In a forked child: what the parent registered with atexit is not run at the end of this process.

    `atexit._clear`, since Python 3.0; multiprocessing calls it in each forked child since Python 3.13. Without it a child would
    flush, delete or report what is the parent's.
    """
    atexit._clear()  # noqa: SLF001


def run_exit_functions() -> None:
    """Run what was registered with atexit, before `os._exit`, which does not.

    `atexit._run_exitfuncs`, since Python 3.0; multiprocessing calls it in each forked child since Python 3.13. Without it, what
    an agent or its libraries registered would not run: a forked process cannot end by unwinding the frames of its parent.
    """
    atexit._run_exitfuncs()  # noqa: SLF001


class _Part(Protocol):
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def _parts(loop: asyncio.AbstractEventLoop) -> list[_Part]:
    found = (getattr(loop, name, None) for name in ("_selector", "_ssock", "_csock"))
    return [part for part in found if part is not None]
