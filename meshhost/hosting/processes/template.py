"""Processes for agents that are forked from a template: the host's side. `child.template` is what runs inside the template.

A template is a process that has imported the program once. A process forked from it is ready in milliseconds and shares what
was imported with all others. `Templates` keeps one template and starts it again when it dies; `Template` asks it for children,
by packets over a socket of its own that carry the descriptors of the child.

The template forks twice, and the process in between exits at once. That makes the child an orphan, and the host, which adopts
orphans at that moment (PR_SET_CHILD_SUBREAPER, see `linux.Adoption`), becomes its parent. So a forked process is the host's own
child, just as a booted one: the host reads its exit status, its number is not given to another process before that, and it does
not depend on the template afterwards. When the template is killed, agents live on.

Invariant: adoption is on exactly while a fork request is unanswered. At other times orphans of agents go to init, as usual; a
host that adopted them all the time would have to reap processes of which it knows nothing.

Concurrency: replies are read by a callback of the event loop, which completes the future of the request. A caller that is
cancelled or times out ends the child that its request brings (`_end_unclaimed`).

Why not `multiprocessing.forkserver` with preload: it imports the main program as `__mp_main__`, so what a program makes below
`if __name__ == "__main__"` is missing; it stays the parent of all children; and it is no cheaper. Measured with a program that
imports agents and the OpenAI client, on Python 3.11, two cores: 24 ms and 2.8 MiB of unshared memory per start here; 55 ms and
7.3 MiB there with `gc.freeze()` in the preloaded module, 36 MiB without.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable

from meshhost.errors import MeshhostError, RemoteProtocolError
from meshhost.hosting.processes.interpreter import Begin, Reapable, User, begin_interpreter
from meshhost.hosting.processes.linux import adoption, kill_group
from meshhost.hosting.processes.messages import Boot, ForkReply, fork_request
from meshhost.hosting.processes.process import AgentProcess
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["AdoptedProcess", "Template", "Templates"]

logger = logging.getLogger(__name__)

FORK_SECONDS = 5.0
"""How long a template may take to fork before it counts as stuck and is killed."""

_TEMPLATE = "from meshhost.hosting.processes.child.template import main; main()"
_REPLY_BYTES = 64
_FIRST_DELAY = 1.0
_MAX_DELAY = 60.0
# A template that lived for this long did not end because of what its program does: back off from the start again.
_GOOD_SECONDS = 60.0
_UNKNOWN_STATUS = 255
_CLOSE_SECONDS = 15.0
_NO_ADOPTION = "the system does not let a process adopt orphans"


class AdoptedProcess:
    """A child of this process that another process has forked. Raises OSError when it is not a child of this process."""

    def __init__(self, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        self.pid = pid
        self.returncode: int | None = None

    def __repr__(self) -> str:
        return f"<AdoptedProcess {self.pid} returncode={self.returncode}>"

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        if self.returncode is None:
            try:
                _, status = os.waitpid(self.pid, 0)
                self.returncode = os.waitstatus_to_exitcode(status)
            except ChildProcessError:  # other code in this process has waited for it, as `os.wait()` does
                self.returncode = _UNKNOWN_STATUS
        return self.returncode

    def kill_and_wait(self) -> None:
        """Kill its group and wait for its end."""
        kill_group(self.pid)
        self.wait()


def _begin_with(control: int, user: User | None) -> Begin:
    async def begin(sock: int, dump_fd: int) -> tuple[Reapable, int]:
        return begin_interpreter(_TEMPLATE, control, sock, dump_fd, user=user)

    return begin


class Template:
    """One process that forks others. Made by `start`, ended by `close`. It is killed when a fork takes over `fork_seconds`.

    `is_childless` is set when a process that it forked did not become a child of this process.
    """

    def __init__(self, process: AgentProcess, control: socket.socket, *, fork_seconds: float = FORK_SECONDS) -> None:
        self.process = process
        self.began = time.monotonic()
        self.is_childless = False
        self._control = control
        self._fork_seconds = fork_seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[AdoptedProcess]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_open = True
        asyncio.get_running_loop().add_reader(control, self._read)

    def __repr__(self) -> str:
        return f"<Template {self.process!r} forking={len(self._waiting)}>"

    @classmethod
    async def start(
        cls, boot: Boot, *, seconds: float, fork_seconds: float = FORK_SECONDS, user: User | None = None
    ) -> "Template":
        """Run the program until it comes to its host, within `seconds`. Raises what the program raised, or MeshhostError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = await AgentProcess.launch(boot, _begin_with(theirs.fileno(), user))
            await process.ready_within(seconds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours, fork_seconds=fork_seconds)

    @property
    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._is_open and self.process.is_alive

    @property
    def end_text(self) -> str:
        """Why it is not alive, as text for people."""
        return "did not answer" if self.process.is_alive else self.process.exit_text

    async def fork(self, sock: int, dump_fd: int) -> tuple[Reapable, int]:
        """A `Begin`: fork a child with these descriptors. A template that does not answer in time is killed.

        Raises OSError when the fork failed, MeshhostError when the template did.
        """
        if not self.is_alive:
            raise MeshhostError(f"the template process has ended: {self.process.exit_text}")
        reply = self._ask(sock, dump_fd)
        child = None
        try:
            async with asyncio.timeout(self._fork_seconds):
                child = await reply
        except TimeoutError:
            self._end()
            raise MeshhostError(f"the template process did not fork within {self._fork_seconds:g} s") from None
        finally:
            if child is None:
                _end_unclaimed(reply)
        try:
            return child, os.pidfd_open(child.pid)
        except OSError:  # no descriptor left
            child.kill_and_wait()
            raise

    def _ask(self, sock: int, dump_fd: int) -> "asyncio.Future[AdoptedProcess]":
        """Send a request; returns the future of its child. Raises MeshhostError, and ends the template, when that fails."""
        number = next(self._numbers)
        # Before the request is sent: the child may be an orphan before `send_fds` returns.
        adoption.enter()
        try:
            socket.send_fds(self._control, [fork_request(number)], [sock, dump_fd])
        except OSError as error:  # it has just ended, or its socket is full
            adoption.leave()
            self._end()
            raise MeshhostError(f"the template process takes no request: {error.strerror}") from None
        reply: asyncio.Future[AdoptedProcess] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        self._idle.clear()
        return reply

    async def close(self, *, seconds: float | None = None) -> None:
        """Let it answer its requests, at most `seconds` (default: `fork_seconds`), then end it.

        Children that no caller took are ended too.
        """
        if self.process.is_alive:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._fork_seconds if seconds is None else seconds):
                    await self._idle.wait()
        self._end()
        await self.process.dispose()

    def _read(self) -> None:
        try:
            while packet := self._control.recv(_REPLY_BYTES):
                self._take(ForkReply.unpacked(packet))
        except BlockingIOError:
            return
        except (OSError, RemoteProtocolError) as error:
            logger.debug("connection to a template process broke", extra={"reason": str(error)})
        self._end()

    def _end(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        # It may still run: stuck, or without its end of the socket.
        self.process.kill("the template did not answer")
        for number in list(self._waiting):
            self._refuse(number, MeshhostError("the template process ended while it forked"))

    def _take(self, reply: ForkReply) -> None:
        if reply.pid == 0:
            text = os.strerror(reply.errno) if reply.errno else "no reason was given"
            self._refuse(reply.number, OSError(reply.errno, text))
            return
        try:
            child = AdoptedProcess(reply.pid)
        except OSError as error:
            self.is_childless = True
            self._refuse(reply.number, MeshhostError(f"a forked process was not handed over: {error.strerror}"))
            return
        waiter = self._forget(reply.number)
        if waiter is None or waiter.done():  # the caller has left meanwhile
            child.kill_and_wait()
        else:
            waiter.set_result(child)

    def _refuse(self, number: int, error: Exception) -> None:
        waiter = self._forget(number)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _forget(self, number: int) -> "asyncio.Future[AdoptedProcess] | None":
        waiter = self._waiting.pop(number, None)
        if waiter is not None:
            adoption.leave()
        if not self._waiting:
            self._idle.set()
        return waiter


def _end_unclaimed(reply: "asyncio.Future[AdoptedProcess]") -> None:
    """End the child that came in the same turn of the event loop in which its caller was cancelled or timed out."""
    if reply.done() and not reply.cancelled() and reply.exception() is None:
        reply.result().kill_and_wait()


class Templates:
    """Keeps one template, and starts another one when it dies.

    `boot` returns what the template runs, which must be ready within `seconds` and fork within `fork_seconds`. A program that
    cannot be forked is an error with `is_must`; otherwise `refused` says why, and `launch` returns None from then on.
    """

    def __init__(
        self,
        boot: Callable[[], Boot],
        *,
        seconds: float,
        is_must: bool,
        fork_seconds: float = FORK_SECONDS,
        user: User | None = None,
    ) -> None:
        self.refused: str | None = None
        self._boot = boot
        self._seconds = seconds
        self._fork_seconds = fork_seconds
        self._is_must = is_must
        self._user = user
        self._template: Template | None = None
        self._starting: asyncio.Task[Template | None] | None = None
        self._tasks = TaskOwner("template")
        self._deaths = 0
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<Templates {self._template!r} refused={self.refused!r}>"

    @property
    def process(self) -> AgentProcess | None:
        """The template's process; None when there is none now."""
        return self._template.process if self._template is not None and self._template.is_alive else None

    @property
    def is_wanted(self) -> bool:
        """Whether one should be started now, before a process is needed."""
        self._let_go_of_ended()
        is_there = self.refused is not None or self._starting is not None or self._template is not None
        return not is_there and time.monotonic() >= self._not_before

    async def ready(self) -> Template | None:
        """The template, started when there is none; None when the program cannot be forked.

        Raises what the program raised, or MeshhostError.
        """
        if self.refused is not None:
            return None
        if self._template is not None and self._template.is_alive:
            return self._template
        if self._starting is None or self._starting.done():
            self._starting = self._tasks.spawn(self._start(), name="start")
        return await asyncio.shield(self._starting)

    async def launch(self, boot: Boot) -> AgentProcess | None:
        """Fork a process for this boot; it is not ready yet. Returns None, and raises, as `ready` does."""
        template = await self.ready()
        if template is None:
            return None
        try:
            return await AgentProcess.launch(boot, template.fork)
        except MeshhostError:
            if template.is_childless:
                self._let_go(template)
                self._refuse(_NO_ADOPTION)
                return None
            if template.is_alive or (template := await self.ready()) is None:
                raise
        return await AgentProcess.launch(boot, template.fork)

    async def close(self) -> None:
        """End the template. Processes that were forked from it live on."""
        await self._tasks.stop()
        self._starting = None
        template, self._template = self._template, None
        if template is not None:
            await template.close()

    async def _start(self) -> Template | None:
        try:
            self._let_go_of_ended()
            if not adoption.is_possible():
                self._refuse(_NO_ADOPTION)
                return None
            template = await Template.start(
                self._boot(), seconds=self._seconds, fork_seconds=self._fork_seconds, user=self._user
            )
            if (reason := template.process.unforkable) is not None:
                await template.close()
                self._refuse(reason)
                return None
            self._template = template
            logger.info("template for agents' processes is ready", extra={"pid": template.process.pid})
            return template
        finally:
            self._starting = None

    def _refuse(self, reason: str) -> None:
        if self._is_must:
            raise MeshhostError(f"agents' processes cannot be forked: {reason}; see MESHHOST_PROCESS_START")
        if self.refused is None:
            self.refused = reason
            logger.warning("each agent's process is booted, none is forked", extra={"reason": reason})

    def _let_go_of_ended(self) -> None:
        """Forget a template that ended by itself. Back off longer after early or repeated ends."""
        template = self._template
        if template is None or template.is_alive:
            return
        self._let_go(template)
        self._deaths = 1 if time.monotonic() - template.began > _GOOD_SECONDS else min(self._deaths + 1, 16)
        delay = min(_FIRST_DELAY * 2 ** (self._deaths - 1), _MAX_DELAY)
        self._not_before = time.monotonic() + delay
        fields = {"pid": template.process.pid, "ended": template.end_text, "retry_in": delay}
        logger.warning("template for agents' processes ended", extra=fields)

    def _let_go(self, template: Template) -> None:
        if self._template is template:
            self._template = None
        self._tasks.spawn(uninterrupted(template.close(), timeout=_CLOSE_SECONDS), name="close")
