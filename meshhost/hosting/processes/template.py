"""Processes for agents, forked from a template: the host's side of `process_fork`.

The template forks in two steps, and the process between ends at once. The child is an orphan then; the host, which adopts
orphans at that moment (PR_SET_CHILD_SUBREAPER), becomes its parent. So an agent's process is the host's own child as if it had
booted it: the host reads its exit status itself, its number is not given to another before, and it needs the template no more
once it is there. If the template is killed the agents live on, and the pool starts another one.

Adoption is on only while a fork is under way: what agents leave behind goes to init as ever.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable

from meshhost.errors import MeshhostError, RemoteProtocolError
from meshhost.hosting.processes.control import adoption
from meshhost.hosting.processes.messages import Boot, ForkReply, fork_request
from meshhost.hosting.processes.process import AgentProcess, Begin, Reapable, begin_interpreter
from meshhost.tasks import TaskOwner, uninterrupted

__all__ = ["AdoptedProcess", "Template", "Templates"]

logger = logging.getLogger(__name__)

FORK_SECONDS = 5.0
"""How long a template may take to fork before it counts as stuck."""

_TEMPLATE = "from meshhost.hosting.processes.template_child import main; main()"
_REPLY_BYTES = 64
_FIRST_DELAY = 1.0
_MAX_DELAY = 60.0
# One that lived so long did not end because of what it is.
_GOOD_SECONDS = 60.0
_UNKNOWN_STATUS = 255
_CLOSE_SECONDS = 15.0
_NO_ADOPTION = "the system hands no process over to another parent"


class AdoptedProcess:
    """A child of this process that another one has forked. Raises OSError when it is no child of this process."""

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
            except ChildProcessError:  # somebody in this process waits for just any child
                self.returncode = _UNKNOWN_STATUS
        return self.returncode

    def bury(self) -> None:
        """Kill it and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def _beginning(control: int) -> Begin:
    async def begin(sock: int, dump_fd: int) -> tuple[Reapable, int]:
        return begin_interpreter(_TEMPLATE, control, sock, dump_fd)

    return begin


class Template:
    """One process that forks others. Made by `start`."""

    def __init__(self, process: AgentProcess, control: socket.socket) -> None:
        self.process = process
        self.began = time.monotonic()
        self.is_childless = False  # what it forked did not become a child of this process
        self._control = control
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[AdoptedProcess]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_open = True
        asyncio.get_running_loop().add_reader(control, self._read)

    def __repr__(self) -> str:
        return f"<Template {self.process!r} forking={len(self._waiting)}>"

    @classmethod
    async def start(cls, boot: Boot, *, seconds: float) -> "Template":
        """Run the program up to its host, within `seconds`. Raises what the program raised, or MeshhostError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = await AgentProcess.launch(boot, _beginning(theirs.fileno()))
            await process.ready_within(seconds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._is_open and self.process.is_alive

    @property
    def end_text(self) -> str:
        """How it came not to be alive, for people."""
        return "did not answer" if self.process.is_alive else self.process.exit_text

    async def fork(self, sock: int, dump_fd: int) -> tuple[Reapable, int]:
        """A child with these descriptors, and a pidfd. Raises OSError or MeshhostError; a template that is stuck is killed."""
        if not self.is_alive:
            raise MeshhostError(f"the template process has ended: {self.process.exit_text}")
        reply = self._ask(sock, dump_fd)
        child = None
        try:
            async with asyncio.timeout(FORK_SECONDS):
                child = await reply
        except TimeoutError:
            self._end()
            raise MeshhostError(f"the template process did not fork within {FORK_SECONDS:g} s") from None
        finally:
            if child is None:
                _bury(reply)
        try:
            return child, os.pidfd_open(child.pid)
        except OSError:  # no descriptor left
            child.bury()
            raise

    def _ask(self, sock: int, dump_fd: int) -> "asyncio.Future[AdoptedProcess]":
        """Send a request; what becomes of it. Raises MeshhostError when the template takes none, and ends it."""
        number = next(self._numbers)
        # Before the template can have forked.
        adoption.enter()
        try:
            socket.send_fds(self._control, [fork_request(number)], [sock, dump_fd])
        except OSError as error:  # it has just ended, or takes nothing any more
            adoption.leave()
            self._end()
            raise MeshhostError(f"the template process takes no request: {error.strerror}") from None
        reply: asyncio.Future[AdoptedProcess] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        self._idle.clear()
        return reply

    async def close(self) -> None:
        """End it, when it has forked what it was asked for; what was not taken is ended, too. Bounded."""
        if self.process.is_alive:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FORK_SECONDS):
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
        # It may be stuck, or have let go of its end.
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
        if waiter is None or waiter.done():  # who asked has left meanwhile
            child.bury()
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


def _bury(reply: "asyncio.Future[AdoptedProcess]") -> None:
    """End the child that came in the very moment in which who asked for it was cancelled or late."""
    if reply.done() and not reply.cancelled() and reply.exception() is None:
        reply.result().bury()


class Templates:
    """Keeps one template, of what `boot` gives, ready within `seconds`. `is_must`: what cannot be forked is an error."""

    def __init__(self, boot: Callable[[], Boot], *, seconds: float, is_must: bool) -> None:
        self.refused: str | None = None
        self._boot = boot
        self._seconds = seconds
        self._is_must = is_must
        self._template: Template | None = None
        self._starting: asyncio.Task[Template | None] | None = None
        self._tasks = TaskOwner("template")
        self._deaths = 0
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<Templates {self._template!r} refused={self.refused!r}>"

    @property
    def process(self) -> AgentProcess | None:
        """The template's process, when there is one."""
        return self._template.process if self._template is not None and self._template.is_alive else None

    @property
    def is_wanted(self) -> bool:
        """Whether one should be started now, ahead of who needs it."""
        self._notice()
        is_there = self.refused is not None or self._starting is not None or self._template is not None
        return not is_there and time.monotonic() >= self._not_before

    async def ready(self) -> Template | None:
        """The template, which is started when there is none; None when the program cannot be forked: `refused` says why.

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
        """A process forked for this boot, not ready yet. None, and raises, as `ready`."""
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
        """End the template. Those that were forked go on."""
        await self._tasks.stop()
        self._starting = None
        template, self._template = self._template, None
        if template is not None:
            await template.close()

    async def _start(self) -> Template | None:
        try:
            self._notice()
            if not adoption.is_possible():
                self._refuse(_NO_ADOPTION)
                return None
            template = await Template.start(self._boot(), seconds=self._seconds)
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
            logger.warning("each agent's process runs the program again, none is forked", extra={"reason": reason})

    def _notice(self) -> None:
        """Let go of a template that ended by itself; the next one waits the longer, the sooner and the more often that was."""
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
