"""The role of a template: a process that has imported the program, and forks those that run agents.

`main` runs the host's program again, just as an agent's process does. When the program comes to `ServiceHost.run()`, a template
runs neither hooks nor agents: it blocks right there, inside the event loop, and forks a child for each request of the host. All
children share what was imported. `fork_safety` decides first whether that is safe; if it is not, the template tells the host
the reason and ends.

The process has one thread, and nothing else runs in its event loop while it waits for requests: both are what makes it safe to
fork. `_serve_child` never returns in a child.
"""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from meshhost.hosting.processes import cpython
from meshhost.hosting.processes.child.boot import begin, no_host_with_paths, prepare, read_boot, run_program
from meshhost.hosting.processes.child.channel import end_group
from meshhost.hosting.processes.child.fork import (
    exit_code_of,
    flush_streams,
    fork_orphan,
    leave_process,
    open_again,
    seed_again,
)
from meshhost.hosting.processes.child.fork_safety import descriptors, files_to_open_again, why_unforkable
from meshhost.hosting.processes.child.log_handler import ChannelHandler
from meshhost.hosting.processes.child.roles import take_role
from meshhost.hosting.processes.linux import end_with_parent
from meshhost.hosting.processes.messages import (
    Boot,
    ForkReply,
    Message,
    Ready,
    Unforkable,
    encode,
    fork_request,
    number_of_request,
)

__all__ = ["TemplateRole", "main"]

_REQUEST_BYTES = len(fork_request(0))


def main() -> None:
    """Run a template: `python -c 'import …; main()' CONTROL_FD SOCKET_FD DUMP_FD`."""
    end_with_parent()
    control, sock = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    dump_fd = int(sys.argv[3])
    for descriptor in (control.fileno(), sock.fileno(), dump_fd):
        os.set_inheritable(descriptor, False)
    boot, _ = read_boot(sock)
    prepare(dump_fd)
    role = TemplateRole(sock, control, boot, dump_fd, descriptors())
    role.open()
    take_role(role)
    run_program(role, boot)


class TemplateRole:
    """Forks children. `known` are the descriptors that the process had before it ran the program."""

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
        # Sent at once, without the threads of a `Channel`: a template must have one thread.
        self._handler = ChannelHandler(self._send)
        self.has_served = False

    def open(self) -> None:
        """Begin to send log records to the host."""
        logging.getLogger().addHandler(self._handler)
        logging.getLogger().setLevel(self._boot.log_level)

    async def serve(self, classes: Mapping[str, Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> NoReturn:
        """Fork until the host is gone; in a child, run an agent's process.

        A program may have several hosts; all that do not bind the boot's paths wait here forever.
        """
        task = asyncio.current_task()
        if task is None or not set(self._boot.paths) <= set(classes) or self.has_served:
            if task is not None:
                self._parked.add(task)
            await asyncio.Event().wait()
        self.has_served = True
        # Let other hosts of the program come to the line above, so that they are parked and no tasks with work.
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        gc.collect()
        own = cpython.loop_descriptors(loop)
        if (reason := why_unforkable(loop, self._parked, self._known | own)) is not None:
            self.leave(Unforkable(reason))
        # A collection writes to the header of each object it looks at, which would unshare its page in every child.
        gc.freeze()
        self._send(Ready(time.monotonic() - self._began))
        files = files_to_open_again(descriptors() - self._known - own)
        while True:
            given = self._fork_for(*self._next_request())
            if given is not None:
                self._serve_child(loop, given, files, classes, list(hooks))

    def leave(self, message: Message) -> NoReturn:
        """Send the last message, and end the program by SystemExit."""
        self._send(message)
        raise SystemExit(0)

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._sock.sendall(encode(message))

    def _next_request(self) -> tuple[int, list[int]]:
        """Wait for a request; returns its number and its descriptors. Ends the process when the host is gone."""
        try:
            packet, given, _, _ = socket.recv_fds(self._control, _REQUEST_BYTES, 2)
        except OSError:
            end_group()
        if not packet:
            end_group()
        return number_of_request(packet), given

    def _fork_for(self, number: int, given: list[int]) -> list[int] | None:
        """Fork a child and answer the request. Returns None in the template, and in the child its descriptors."""
        # What is buffered would be written by every child too.
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

    def _serve_child(
        self,
        loop: asyncio.AbstractEventLoop,
        given: list[int],
        files: Iterable[int],
        classes: Mapping[str, Callable[..., Any]],
        hooks: list[Callable[[], Any]],
    ) -> NoReturn:
        """In a child: become an agent's process, and exit when it is done."""
        code = 1
        try:
            sock, dump_fd = given
            cpython.forget_exit_functions()
            cpython.leave_loop(loop)
            cpython.close_loop_of_parent(loop)
            self._close()
            for descriptor in files:
                open_again(descriptor)
            seed_again()
            level = logging.getLogger().level
            role, boot = begin(socket.socket(fileno=sock), dump_fd)
            os.close(self._dump_fd)
            if level != self._boot.log_level:  # the program has set its own
                logging.getLogger().setLevel(level)
            if not set(boot.paths) <= set(classes):
                role.leave(no_host_with_paths(boot))
            with asyncio.Runner(debug=loop.get_debug(), loop_factory=type(loop)) as runner:
                # For code that calls `asyncio.get_event_loop()` outside of a coroutine.
                asyncio.set_event_loop(runner.get_loop())
                runner.get_loop().set_exception_handler(loop.get_exception_handler())
                runner.get_loop().set_task_factory(loop.get_task_factory())
                runner.run(role.serve(classes, hooks))
        except BaseException as error:  # noqa: BLE001 - the frames below are the template's and must not be unwound
            code = exit_code_of(error)
        finally:
            leave_process(code)

    def _close(self) -> None:
        """In a child: close what belongs to the template."""
        logging.getLogger().removeHandler(self._handler)
        self._sock.close()
        self._control.close()
