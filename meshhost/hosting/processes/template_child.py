"""The code inside a template: a process that has imported the program and forks those that run agents.

`main` runs the host's program again, as in `process_child`. Where the program comes to `ServiceHost.run()` the template stands
still: it runs no hook and no agent, and forks a child for each request of the host. So what was imported is in memory once.

A forked child must be what a booted process is. Whatever the program has begun and a fork would tear apart, such as threads
and connections, is looked for first; then the host is told that there is nothing to fork here.
"""

import asyncio
import atexit
import contextlib
import errno
import fcntl
import functools
import gc
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from meshhost.hosting.processes import child as process_child
from meshhost.hosting.processes.child import ChannelHandler, end_group, never_came, prepare, read_boot, run_program
from meshhost.hosting.processes.control import end_with_parent
from meshhost.hosting.processes.messages import (
    Boot,
    ForkReply,
    Log,
    Message,
    Ready,
    Unforkable,
    encode,
    fork_request,
    number_of_request,
)

__all__ = ["TemplateRole", "descriptors", "files_to_open_again", "main", "why_unforkable"]

_MAX_NAMED = 5
_ENDING_SECONDS = 0.2
_REQUEST_BYTES = len(fork_request(0))
# Character devices that have no state which processes could share.
_PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts/")
# `random` seeds itself again after a fork, and OpenTelemetry takes its ids from there; `secrets` and `uuid` ask the kernel.
_SEEDERS = {"numpy.random": "seed", "torch": "seed"}
_INTERRUPTED = 130


class TemplateRole:
    """What this process is for: to be copied. `known` are the descriptors that it had before it ran the program."""

    def __init__(
        self, sock: socket.socket, control: socket.socket, boot: Boot, dump_fd: int, known: frozenset[int]
    ) -> None:
        self._sock = sock
        self._control = control
        self._boot = boot
        self._dump_fd = dump_fd
        self._known = known
        self._began = time.monotonic()
        self._parked: set[asyncio.Task[Any]] = set()
        self._handler = ChannelHandler(self._log)
        self.has_served = False

    def open(self) -> None:
        """Begin to hand log records to the host."""
        logging.getLogger().addHandler(self._handler)
        logging.getLogger().setLevel(self._boot.log_level)

    async def serve(self, classes: Mapping[str, Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> NoReturn:
        """Fork until the host is gone; in a child, be an agent's process. Waits for ever when another host is meant."""
        task = asyncio.current_task()
        if task is None or not set(self._boot.paths) <= set(classes) or self.has_served:
            if task is not None:
                self._parked.add(task)
            await asyncio.Event().wait()
        self.has_served = True
        # Other hosts of the program come to this point, too.
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        gc.collect()
        own = own_descriptors(loop)
        if (reason := why_unforkable(loop, self._parked, self._known | own)) is not None:
            self.leave(Unforkable(reason))
        # Objects that no collection looks at are not written to: their memory stays shared.
        gc.freeze()
        self._send(Ready(time.monotonic() - self._began))
        files = files_to_open_again(descriptors() - self._known - own)
        while True:
            descriptors_of_child = self._fork_for(*self._request())
            if descriptors_of_child is not None:
                self._be_agent(loop, descriptors_of_child, files, classes, list(hooks))

    def leave(self, message: Message) -> NoReturn:
        """Send the last message, and unwind the program."""
        self._send(message)
        raise SystemExit(0)

    def _log(self, log: Log) -> None:
        self._send(log)

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._sock.sendall(encode(message))

    def _request(self) -> tuple[int, list[int]]:
        """The next request's number and its descriptors. Ends the process when the host is gone."""
        try:
            packet, given, _, _ = socket.recv_fds(self._control, _REQUEST_BYTES, 2)
        except OSError:
            end_group()
        if not packet:
            end_group()
        return number_of_request(packet), given

    def _fork_for(self, number: int, given: list[int]) -> list[int] | None:
        """Fork a child and tell the host; in the child returns its descriptors."""
        flush_streams()
        try:
            pid = fork_orphan()
        except OSError as error:
            reply = ForkReply(number, 0, error.errno or 0)
        else:
            if pid == 0:
                return given
            reply = ForkReply(number, pid)
        for descriptor in given:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            self._control.send(reply.packed())
        return None

    def _be_agent(
        self,
        loop: asyncio.AbstractEventLoop,
        given: list[int],
        files: Iterable[int],
        classes: Mapping[str, Callable[..., Any]],
        hooks: list[Callable[[], Any]],
    ) -> NoReturn:
        code = 1
        try:
            sock, dump_fd = given
            atexit._clear()  # noqa: SLF001 - what the template registered is the template's
            leave_loop(loop)
            self._give_up()
            for descriptor in files:
                open_again(descriptor)
            seed_again()
            level = logging.getLogger().level
            role, boot = process_child.begin(socket.socket(fileno=sock), dump_fd)
            os.close(self._dump_fd)
            if level != self._boot.log_level:  # the program's own choice
                logging.getLogger().setLevel(level)
            if not set(boot.paths) <= set(classes):
                role.leave(never_came(boot))
            with asyncio.Runner(debug=loop.get_debug(), loop_factory=type(loop)) as runner:
                # For who asks outside of a coroutine.
                asyncio.set_event_loop(runner.get_loop())
                runner.get_loop().set_exception_handler(loop.get_exception_handler())
                runner.get_loop().set_task_factory(loop.get_task_factory())
                runner.run(role.serve(classes, hooks))
        except BaseException as error:  # noqa: BLE001 - nothing may unwind the frames below, which are the template's
            code = exit_code_of(error)
        finally:
            leave_process(code)

    def _give_up(self) -> None:
        """Close what is the template's."""
        logging.getLogger().removeHandler(self._handler)
        self._sock.close()
        self._control.close()


def main() -> None:
    """Be a template: `python -c 'import …; main()' <control> <socket> <pipe for stack dumps>`."""
    end_with_parent()
    control, sock = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    dump_fd = int(sys.argv[3])
    for descriptor in (control.fileno(), sock.fileno(), dump_fd):
        os.set_inheritable(descriptor, False)
    boot, _ = read_boot(sock)
    prepare(dump_fd)
    role = TemplateRole(sock, control, boot, dump_fd, descriptors())
    role.open()
    process_child.take_role(role)
    run_program(role, boot)


# Whether it is safe


def why_unforkable(
    loop: asyncio.AbstractEventLoop, parked: Iterable[asyncio.Task[Any]], known: Iterable[int]
) -> str | None:
    """What a child would not get, or would share, if it were forked now, for people; None when there is nothing.

    `parked` are tasks that wait for nothing, `known` the descriptors that a child closes or may have.
    """
    if names := _other_threads():
        return f"program started threads while it was imported: {_listed(names)}"
    if type(loop) is not asyncio.SelectorEventLoop:
        return f"program runs on an event loop of another kind: {type(loop).__qualname__}"
    if names := _other_tasks(loop, parked):
        return f"program has other tasks in its event loop: {_listed(names)}"
    if _has_children():
        return "program started processes while it was imported"
    if names := [*filter(None, map(_why_not_shared, sorted(descriptors() - frozenset(known))))]:
        return f"program holds what cannot be shared: {_listed(names)}"
    # Besides the loop's own pipe to itself.
    if len(loop._selector.get_map() or ()) > 1 or loop._signal_handlers:  # type: ignore[attr-defined]  # noqa: SLF001
        return "program waits for files or signals in its event loop"
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMED] + (["…"] if len(names) > _MAX_NAMED else []))


def _other_threads() -> list[str]:
    """The names of all threads but this one. One that is just ending is waited for."""
    end = time.monotonic() + _ENDING_SECONDS
    while (names := _thread_names()) and time.monotonic() < end:
        time.sleep(_ENDING_SECONDS / 10)
    return names


def _thread_names() -> list[str]:
    own = threading.get_native_id()
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    for task in Path("/proc/self/task").iterdir():
        if (number := int(task.name)) != own:
            with contextlib.suppress(OSError):
                names.append(known.get(number) or (task / "comm").read_text().strip())
    return names


def _other_tasks(loop: asyncio.AbstractEventLoop, parked: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Those that would still do something: not this one, not the parked, not who waits for one of these."""
    still: set[object] = {asyncio.current_task(), *parked}
    others = asyncio.all_tasks(loop) - still
    while waiting := {task for task in others if still.intersection(_awaited(task))}:
        others -= waiting
        still |= waiting
    # Who gathers, waits for all of them: those that work are left.
    return sorted(task.get_name() for task in others)


def _awaited(task: asyncio.Task[Any]) -> Iterator[object]:
    waiter = getattr(task, "_fut_waiter", None)
    yield waiter
    yield from getattr(waiter, "_children", ())


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descriptors() -> frozenset[int]:
    """All that are open here."""
    found = frozenset(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are what is wanted
    return frozenset(number for number in found if _is_open(number))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:  # that of the listing itself
        return False
    return True


def own_descriptors(loop: asyncio.AbstractEventLoop) -> frozenset[int]:
    """Those of an event loop itself, as far as its kind is known."""
    parts = (getattr(loop, name, None) for name in ("_selector", "_ssock", "_csock"))
    return frozenset(part.fileno() for part in parts if part is not None)


def _why_not_shared(descriptor: int) -> str | None:
    """What the descriptor is, when two processes must not have it both."""
    mode = os.fstat(descriptor).st_mode
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - not always a path
    if stat.S_ISDIR(mode) or (stat.S_ISCHR(mode) and name.startswith(_PLAIN_DEVICES)):
        return None
    if not stat.S_ISREG(mode):
        return name
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return None if _can_be_opened_again(descriptor) else name
    # Each write to a log goes to its end. Others have a place that they would share, or locks, as databases.
    return None if flags & os.O_APPEND else name


def _can_be_opened_again(descriptor: int) -> bool:
    try:
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def files_to_open_again(candidates: Iterable[int]) -> list[int]:
    """Those of the descriptors that are files to read."""
    return [
        descriptor
        for descriptor in candidates
        if stat.S_ISREG(os.fstat(descriptor).st_mode)
        and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    ]


# The fork


def fork_orphan() -> int:
    """Fork a child whose parent ends at once, so that it is handed to the host; it leads a session of its own.

    Returns 0 in the child, and its number in the parent when the host has it. Raises OSError.
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
        # When it is gone the child has its new parent.
        os.waitpid(between, 0)
    if len(answer) != 8:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return int.from_bytes(answer, "big")


def _fork_again(write: int) -> int:
    """In the process between: fork the child and end. Returns in the child, which has told its number."""
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        os.write(write, os.getpid().to_bytes(8, "big"))
        os.close(write)
    except OSError:
        os._exit(1)
    return 0


# In a child


def leave_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Be in no event loop any more. The parent's goes on: nothing is unregistered from what is shared with it."""
    task = asyncio.current_task(loop)
    if task is not None:
        # Newer Pythons let go of the loop themselves after a fork, but not of the task, which needs the loop.
        asyncio._set_running_loop(loop)  # noqa: SLF001 - there for who implements loops
        asyncio.tasks._leave_task(loop, task)  # noqa: SLF001 - as before
    asyncio._set_running_loop(None)  # noqa: SLF001 - as before
    signal.set_wakeup_fd(-1)
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, functools.partial) and isinstance(getattr(handler.func, "__self__", None), asyncio.Runner):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: TID251 - as a process begins
    # Closed one by one: the loop's own way would remove its pipe from the selector that it shares with the parent's.
    for name in ("_selector", "_ssock", "_csock"):
        getattr(loop, name).close()
    loop._closed = True  # type: ignore[attr-defined]  # noqa: SLF001


def open_again(descriptor: int) -> None:
    """Give a file that is read a place of its own, where it is now."""
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    inheritable = os.get_inheritable(descriptor)
    opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    os.lseek(opened, place, os.SEEK_SET)
    os.dup2(opened, descriptor, inheritable=inheritable)
    os.close(opened)


def seed_again() -> None:
    """Let random numbers differ from those of other children."""
    for name, seeder in _SEEDERS.items():
        if (module := sys.modules.get(name)) is not None:
            getattr(module, seeder)()


def exit_code_of(error: BaseException) -> int:
    """The exit code of a Python that ends with this error, which is shown as there."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    traceback.print_exception(error)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def leave_process(code: int) -> NoReturn:
    """End here, with what was registered for it in this process; frames below are not unwound."""
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter's own end would unwind the frames
        logging.shutdown()
        flush_streams()
    finally:
        os._exit(code)


def flush_streams() -> None:
    """Write out what stands in the buffers of the standard streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
