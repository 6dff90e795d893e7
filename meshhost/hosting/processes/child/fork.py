"""The fork itself, and what a forked child does first and last so that it is what a booted process is.

Called by `child.template` only. `fork_orphan` makes the child; `open_again` and `seed_again` give it what each process must
have of its own; `leave_process` ends it. The frames of the template are below those of the child for its whole life and must
never be unwound in it: they would run the template's `finally` blocks, so the child ends by `os._exit`.
"""

import contextlib
import errno
import logging
import os
import sys
import traceback
from typing import NoReturn

from meshhost.hosting.processes.cpython import run_exit_functions

__all__ = ["exit_code_of", "flush_streams", "fork_orphan", "leave_process", "open_again", "seed_again"]

# Random generators that all children would otherwise start from the same state. `random` seeds itself after a fork, and
# OpenTelemetry takes its ids from there; `secrets` and `uuid` ask the kernel.
_SEEDERS = {"numpy.random": "seed", "torch": "seed"}
_INTERRUPTED = 130


def fork_orphan() -> int:
    """Fork a child whose parent exits at once, so that the host adopts it; it leads a session of its own.

    Returns 0 in the child. In the parent returns its pid, once the host is its parent. Raises OSError.
    """
    read, write = os.pipe()
    try:
        between = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if between == 0:
        os.close(read)
        return _fork_again(write)
    os.close(write)
    try:
        answer = os.read(read, 8)
    finally:
        os.close(read)
        # Once the process in between is gone, the child has its new parent.
        os.waitpid(between, 0)
    if len(answer) != 8:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return int.from_bytes(answer, "big")


def _fork_again(write: int) -> int:
    """In the process in between: fork the child and exit. Returns in the child, which has written its pid."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        os.write(write, os.getpid().to_bytes(8, "big"))
        os.close(write)
    except OSError:
        os._exit(1)
    return 0


def open_again(descriptor: int) -> None:
    """Give a file that is read a position of its own in this process, which begins where the shared one is now."""
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    inheritable = os.get_inheritable(descriptor)
    opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    os.lseek(opened, place, os.SEEK_SET)
    os.dup2(opened, descriptor, inheritable=inheritable)
    os.close(opened)


def seed_again() -> None:
    """Seed the random generators of libraries that were imported, so that children differ."""
    for name, seeder in _SEEDERS.items():
        if (module := sys.modules.get(name)) is not None:
            getattr(module, seeder)()


def exit_code_of(error: BaseException) -> int:
    """The exit code of an interpreter that ends with this error; the error is printed as an interpreter does."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    traceback.print_exception(error)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def leave_process(code: int) -> NoReturn:
    """Exit without unwinding any frame: run the exit functions of this process, flush logs and streams, exit."""
    try:
        run_exit_functions()
        logging.shutdown()
        flush_streams()
    finally:
        os._exit(code)


def flush_streams() -> None:
    """Write out the buffers of the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
