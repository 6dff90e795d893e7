"""One process that runs, or waits to run, one agent: the host's side of it.

`AgentProcess.launch` starts a process (`interpreter` boots it, `template` forks it) and connects it by a socket pair that
carries `messages`. The pool assigns it a call and ends it; each process runs one agent, once, and is never used again.

A process goes through: booting, ready, assigned, started, ended, exited. `wait_ready`, `wait_started` and `wait_ended` wait for
a message of the child, but return at the latest when the process has exited, so that a child that dies is never waited for.

Concurrency: one task (`receive`) reads the socket; the pidfd calls `_on_exit` in the event loop, which starts a second task
(`settle`) to let the last messages arrive. Both may be cancelled, and `dispose` does so. Invariant: the process is a group
leader and is not reaped before its group has been killed, so that nothing the agent started outlives it and no stranger that
was given the same number is killed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable

from meshhost.errors import MeshhostError, RemoteProtocolError
from meshhost.hosting.processes import interpreter
from meshhost.hosting.processes.interpreter import Begin, Reapable
from meshhost.hosting.processes.linux import kill_group, memory_of, reap_group
from meshhost.hosting.processes.log_relay import emit_here
from meshhost.hosting.processes.messages import (
    Abort,
    Assign,
    Boot,
    BootFailed,
    Ended,
    EndForGood,
    FrameReader,
    Log,
    Message,
    Ping,
    Pong,
    Ready,
    Started,
    Unforkable,
    encode,
)
from meshhost.tasks import TaskOwner, uninterrupted
from meshhost.usage import UsageSums

__all__ = ["AgentProcess"]

logger = logging.getLogger(__name__)

ABORT_SECONDS = 2.0
"""How long an agent that is aborted may take to leave before its process is killed."""
EXIT_SECONDS = 3.0
"""How long a process may take to exit once its agent has ended."""

# After SIGKILL a process ends as soon as the kernel lets it; only one stuck in the kernel takes longer.
_KILLED_SECONDS = 5.0
# How long `faulthandler` gets to write the stacks of all threads; it does so in a signal handler, within milliseconds.
_DUMP_SECONDS = 0.5
# One or two unanswered pings are normal: an answer may be on its way.
_SILENT_PINGS = 3
_READ_BYTES = 65_536
_MAX_DUMP = 16_000


class AgentProcess:
    """A child process that leads a session of its own. Made by `launch`, ended by `end` or `dispose`.

    `on_end_for_good` gets the reason, and how many renewals the child saw, when its end is final and no crash; `on_usage` gets
    what the agent reports. `spawn_id` is the id of the agent it runs, "" before. `unforkable` is set by a template that cannot
    fork, to why.
    """

    def __init__(
        self,
        handle: Reapable,
        pidfd: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        dump_fd: int,
    ) -> None:
        self.pid = handle.pid
        self.on_end_for_good: Callable[[str, int], None] = lambda _reason, _renewals: None
        self.on_usage: Callable[[UsageSums], None] = lambda _: None
        self.is_assigned = False
        self.spawn_id = ""
        self.unforkable: str | None = None
        self._child = handle
        self._reader = reader
        self._writer = writer
        self._dump_fd = dump_fd
        self._ready = asyncio.Event()
        self._started = asyncio.Event()
        self._over = asyncio.Event()
        self._exited = asyncio.Event()
        self._boot_error: Exception | None = None
        self._ended: Ended | None = None
        self._fatal: str | None = None
        self._dump = ""
        self._pinged = 0
        self._ponged = 0
        self._answered_at = time.monotonic()
        self._activity: str | None = None
        self._tasks = TaskOwner(f"process {handle.pid}")
        self._pidfd = pidfd
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        self._receiving = self._tasks.spawn(self._receive(), name="receive")

    def __repr__(self) -> str:
        state = "exited" if self._exited.is_set() else "assigned" if self.is_assigned else "booting or idle"
        return f"<AgentProcess {self.pid} {state}>"

    @classmethod
    async def launch(cls, boot: Boot, begin: Begin = interpreter.boot) -> "AgentProcess":
        """Start a process by `begin` and tell it which program to run. Raises MeshhostError when it cannot be started."""
        ours, theirs = socket.socketpair()
        close = ours.close
        dump_read, dump_write = os.pipe()
        try:
            os.set_blocking(dump_read, False)
            # Nothing is awaited once the process exists, so that a cancellation cannot lose it. `begin` itself ends what it
            # started when it is cancelled.
            reader, writer = await asyncio.open_connection(sock=ours)
            close = writer.close
            handle, pidfd = await begin(theirs.fileno(), dump_write)
        except BaseException as error:
            close()
            os.close(dump_read)
            if isinstance(error, OSError):
                raise MeshhostError(f"cannot start a process for an agent: {error.strerror or error}") from None
            raise
        finally:
            theirs.close()
            os.close(dump_write)
        process = cls(handle, pidfd, reader, writer, dump_read)
        process.send(boot)
        return process

    @property
    def is_alive(self) -> bool:
        """Whether it has not exited."""
        return not self._exited.is_set()

    @property
    def has_started(self) -> bool:
        """Whether its agent runs, or ran."""
        return self._started.is_set()

    @property
    def has_ended(self) -> bool:
        """Whether its agent has ended, or the process has."""
        return self._over.is_set()

    @property
    def is_killed(self) -> bool:
        """Whether it was killed by `kill`; it may not have exited yet."""
        return self._fatal is not None

    @property
    def exit_text(self) -> str:
        """How it exited, as text for people."""
        code = self._child.returncode
        if code is None:
            return "still running"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
            return f"killed by signal {-code}"
        return f"exit code {code}"

    @property
    def activity(self) -> str | None:
        """What its agent did at the last ping, as text; or that the process does not answer pings. None: unknown."""
        if self._pinged - self._ponged < _SILENT_PINGS:
            return self._activity
        silence = f"its process, which has not answered for {time.monotonic() - self._answered_at:.0f} s"
        return silence if self._activity is None else f"{silence}; before that {self._activity}"

    async def wait_ready(self) -> None:
        """Return when it can be assigned. Raises what the program or its prewarm raised, or MeshhostError."""
        await self._ready.wait()
        if self._boot_error is not None:
            raise self._boot_error
        if not self.is_alive:
            raise MeshhostError(f"the process for an agent ended before it was ready: {self._fatal or self.exit_text}")

    async def ready_within(self, seconds: float) -> None:
        """Return when it can be assigned. On any error, also a cancellation, it is ended.

        Raises as `wait_ready`, or MeshhostError after `seconds`.
        """
        is_ready = False
        try:
            async with asyncio.timeout(seconds):
                await self.wait_ready()
            is_ready = True
        except TimeoutError:
            raise MeshhostError(
                f"the program was not ready in its process within {seconds:g} s:\n{await self.stack()}"
            ) from None
        finally:
            if not is_ready:
                await uninterrupted(self.dispose())

    def assign(self, assign: Assign) -> None:
        """Let it run its agent. Raises MeshhostError when the call cannot be sent."""
        self.is_assigned = True
        try:
            self.send(assign)
        except ValueError:
            raise MeshhostError("the call cannot be sent to a process: its arguments are not valid JSON") from None

    async def wait_started(self) -> None:
        """Return when the agent runs, or has ended."""
        await self._started.wait()

    async def wait_ended(self) -> None:
        """Return when the agent has ended; the process may not have exited yet."""
        await self._over.wait()

    async def wait_exited(self) -> None:
        """Return when the process has exited."""
        await self._exited.wait()

    def send(self, message: Message) -> None:
        """Send to the child; ignored when it has exited. Raises ValueError for a message that is too long."""
        if self.is_alive and not self._writer.is_closing():
            self._writer.write(encode(message))

    def kill(self, reason: str) -> None:
        """Kill it and all processes that it started; `reason` becomes the error of its agent. Idempotent."""
        self._fatal = self._fatal or reason
        if self.is_alive:
            kill_group(self.pid)

    async def end(self, *, abort_seconds: float = ABORT_SECONDS) -> None:
        """Let it exit, and return when it has; an agent that still runs is aborted, and killed after `abort_seconds`."""
        if not self.has_ended:
            self.send(Abort())
            await self._exits_within(abort_seconds)
        await self._exits_within(EXIT_SECONDS if self.has_ended else 0.0)
        await self.dispose()

    async def dispose(self) -> None:
        """Kill it if it is alive, and release what it holds in this process. Idempotent."""
        if self.is_alive:
            kill_group(self.pid)
            if not await self._exits_within(_KILLED_SECONDS):
                logger.error("process did not end when it was killed", extra={"pid": self.pid})
        await asyncio.wait({self._receiving}, timeout=1.0)
        await self._tasks.stop(timeout=1.0)
        reap_group(self.pid)
        self._writer.close()
        if self._dump_fd >= 0:
            self._dump += self._read_dump()
            os.close(self._dump_fd)
            self._dump_fd = -1

    def raise_crash(self) -> None:
        """Raise what the agent crashed with, or a MeshhostError that says how its process ended. Return if it did not crash."""
        if self._ended is not None:
            if self._ended.error is not None:
                raise self._ended.error.rebuilt()
        elif self._fatal is not None:
            raise MeshhostError(self._fatal)
        else:
            dump = f"\n{self._dump}" if self._dump else ""
            raise MeshhostError(f"the agent's process ended unexpectedly: {self.exit_text}{dump}")

    def ping(self) -> int:
        """Ask its event loop to answer; returns how many earlier pings are not answered yet."""
        missing = self._pinged - self._ponged
        self._pinged += 1
        self.send(Ping(self._pinged))
        return missing

    async def stack(self) -> str:
        """The stacks of its threads as text, "" when it gives none. Works also while its event loop is blocked."""
        if not self.is_alive:
            return ""
        signal.pidfd_send_signal(self._pidfd, signal.SIGUSR1)
        await asyncio.sleep(_DUMP_SECONDS)
        return self._read_dump()

    def memory(self) -> int:
        """Its resident memory in bytes; 0 when it has exited."""
        return memory_of(self.pid) if self.is_alive else 0

    def _read_dump(self) -> str:
        if self._dump_fd < 0:
            return ""
        try:
            dump = os.read(self._dump_fd, _MAX_DUMP).decode(errors="replace")
        except BlockingIOError:
            return ""
        # The main thread comes first, since it runs the agent; then the thread that took the signal.
        threads = dump.split("\n\n")
        threads.sort(key=lambda text: (" in <module>" not in text, "Current thread" not in text))
        return "\n\n".join(threads)

    async def _exits_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return not self.is_alive

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # First kill the group, then reap: see the invariant in the module docstring.
        kill_group(self.pid)
        os.close(self._pidfd)
        self._child.wait()
        self._exited.set()
        self._tasks.spawn(self._settle(), name="settle")

    async def _settle(self) -> None:
        # The last messages may still be in the socket. The wait is short: a process that escaped the group (by `setsid`)
        # may hold the other end open for as long as it likes.
        try:
            await asyncio.wait({self._receiving}, timeout=1.0)
        finally:
            for event in (self._ready, self._started, self._over):
                event.set()

    async def _receive(self) -> None:
        frames = FrameReader()
        try:
            while data := await self._reader.read(_READ_BYTES):
                for message in frames.feed(data):
                    self._handle(message)
        except RemoteProtocolError as error:
            self.kill(str(error))
        except OSError as error:
            logger.debug("connection to an agent's process broke", extra={"pid": self.pid, "reason": str(error)})

    def _handle(self, message: Message) -> None:
        match message:
            case Log():
                emit_here(message, self.pid)
            case Pong(number=number, activity=activity):
                self._ponged, self._answered_at, self._activity = number, time.monotonic(), activity
                self._report(message.usage)
            case Ready():
                self._ready.set()
            case Unforkable(reason=reason):
                self.unforkable = reason
                self._ready.set()
            case BootFailed(error=error):
                self._boot_error = error.rebuilt()
                self._ready.set()
            case Started():
                self._started.set()
            case EndForGood(reason=reason, renewals=renewals):
                self.on_end_for_good(reason, renewals)
            case Ended():
                self._report(message.usage)
                self._ended = message
                self._started.set()
                self._over.set()
            case _:
                self.kill(f"the agent's process sent a {message.kind} message, which only the host may send")

    def _report(self, usage: UsageSums | None) -> None:
        if usage is not None:
            self.on_usage(usage)
