"""One process that runs, or waits to run, one agent: the host's side of it."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from meshhost.errors import MeshhostError, RemoteProtocolError
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

__all__ = ["AgentProcess", "Begin", "Reapable", "begin_interpreter", "memory_of"]

logger = logging.getLogger(__name__)

ABORT_SECONDS = 2.0
"""How long an agent that is cut short may take before its process is killed."""
EXIT_SECONDS = 3.0
"""How long a process may take to exit when its agent has ended."""

_KILLED_SECONDS = 5.0
_DUMP_SECONDS = 0.5
# One answer may well be on its way.
_SILENT_PINGS = 3
_READ_BYTES = 65_536
_MAX_DUMP = 16_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CHILD = "from meshhost.hosting.processes.child import main; main()"


class Reapable(Protocol):
    """A child of this process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its number, its own until it was waited for."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, less than 0 for a signal; None until it was waited for."""

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""


Begin = Callable[[int, int], Awaitable[tuple[Reapable, int]]]
"""Gives a process the descriptors of its socket and its pipe for stack dumps; returns it, and a pidfd. Raises OSError."""


class AgentProcess:
    """A child of its own session, which the host talks to over a socket. Made by `launch`, ended by `end`."""

    def __init__(
        self,
        handle: Reapable,
        pidfd: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        dump_fd: int,
    ) -> None:
        self.pid = handle.pid
        self.on_end_for_good: Callable[[str], None] = lambda _: None
        self.on_usage: Callable[[UsageSums], None] = lambda _: None
        self.launched_at = time.monotonic()
        self.is_assigned = False
        self.spawn_id = ""
        self.unforkable: str | None = None
        self._child = handle
        self._reader = reader
        self._writer = writer
        self._dump_fd = dump_fd
        self._ready = asyncio.Event()
        self._started = asyncio.Event()
        # What `wait_ready`, `wait_started` and `wait_ended` wait for comes with the exit at the latest.
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
    async def launch(cls, boot: Boot, begin: Begin | None = None) -> "AgentProcess":
        """Start a process that runs the boot's program, by `begin` (default: boot it). Raises MeshhostError when that fails."""
        ours, theirs = socket.socketpair()
        close = ours.close
        dump_read, dump_write = os.pipe()
        try:
            os.set_blocking(dump_read, False)
            # Nothing is awaited here once there is a process, so that a cancellation cannot lose it.
            reader, writer = await asyncio.open_connection(sock=ours)
            close = writer.close
            handle, pidfd = await (begin or _boot)(theirs.fileno(), dump_write)
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
        """Whether its agent's life is over, or the process is."""
        return self._over.is_set()

    @property
    def is_killed(self) -> bool:
        """Whether it was told to end at once; it may not be gone yet."""
        return self._fatal is not None

    @property
    def exit_text(self) -> str:
        """How it exited, for people."""
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
        """What its agent did when its process was last asked whether it turns, or that it does not answer."""
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
        """Return when it can be assigned; else it is ended. Raises as `wait_ready`, or MeshhostError after `seconds`."""
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
        """Let it run its agent. Raises MeshhostError for a call that cannot be sent."""
        self.is_assigned = True
        try:
            self.send(assign)
        except ValueError:
            raise MeshhostError("the call cannot be handed to a process: its arguments are no proper JSON") from None

    async def wait_started(self) -> None:
        """Return when the agent runs, or has ended."""
        await self._started.wait()

    async def wait_ended(self) -> None:
        """Return when the agent's life is over; the process may still be leaving."""
        await self._over.wait()

    async def wait_exited(self) -> None:
        """Return when the process is gone."""
        await self._exited.wait()

    def send(self, message: Message) -> None:
        """Send to the child; nothing when it is gone."""
        if self.is_alive and not self._writer.is_closing():
            self._writer.write(encode(message))

    def kill(self, reason: str) -> None:
        """End it and all that it started, at once; `reason` is told as its crash."""
        self._fatal = self._fatal or reason
        if self.is_alive:
            self._kill_group()

    async def end(self) -> None:
        """Let it leave, within bounds; returns when it is gone. Cut short when its agent still lives."""
        if not self.has_ended:
            self.send(Abort())
            await self._exits_within(ABORT_SECONDS)
        await self._exits_within(EXIT_SECONDS if self.has_ended else 0.0)
        await self.dispose()

    async def dispose(self) -> None:
        """Kill it, if it lives, and give back what it holds here."""
        if self.is_alive:
            self._kill_group()
            if not await self._exits_within(_KILLED_SECONDS):
                logger.error("process did not end when it was killed", extra={"pid": self.pid})
        await asyncio.wait({self._receiving}, timeout=1.0)
        await self._tasks.stop(timeout=1.0)
        _reap_group(self.pid)
        self._writer.close()
        if self._dump_fd >= 0:
            self._dump += self._read_dump()
            os.close(self._dump_fd)
            self._dump_fd = -1

    def raise_ending(self) -> None:
        """Raises what the agent crashed with, or how its process came to its end without a word."""
        if self._ended is not None:
            if self._ended.error is not None:
                raise self._ended.error.rebuilt()
        elif self._fatal is not None:
            raise MeshhostError(self._fatal)
        else:
            dump = f"\n{self._dump}" if self._dump else ""
            raise MeshhostError(f"the agent's process ended without a word: {self.exit_text}{dump}")

    def ping(self) -> int:
        """Ask whether its event loop turns; returns how many earlier questions are not answered."""
        missing = self._pinged - self._ponged
        self._pinged += 1
        self.send(Ping(self._pinged))
        return missing

    async def stack(self) -> str:
        """Where its threads are now, as text; "" when it does not tell. Works also when its event loop is blocked."""
        if not self.is_alive:
            return ""
        signal.pidfd_send_signal(self._pidfd, signal.SIGUSR1)
        await asyncio.sleep(_DUMP_SECONDS)
        return self._read_dump()

    def _read_dump(self) -> str:
        if self._dump_fd < 0:
            return ""
        try:
            dump = os.read(self._dump_fd, _MAX_DUMP).decode(errors="replace")
        except BlockingIOError:
            return ""
        # First to whoever reads the error comes the main thread, which runs the agent; else the one that took the signal.
        threads = dump.split("\n\n")
        threads.sort(key=lambda text: (" in <module>" not in text, "Current thread" not in text))
        return "\n\n".join(threads)

    def memory(self) -> int:
        """Its resident memory in bytes; 0 when it is gone."""
        return memory_of(self.pid) if self.is_alive else 0

    async def _exits_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        return not self.is_alive

    def _kill_group(self) -> None:
        # Until it is reaped its number is not given to another.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        # Before it is reaped: what it started is in its group and goes with it.
        self._kill_group()
        os.close(self._pidfd)
        self._child.wait()
        self._exited.set()
        self._tasks.spawn(self._settle(), name="settle")

    async def _settle(self) -> None:
        # Its last words may still be in the socket. Somebody it started may hold the other end: not waited for long.
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
                self._log(message)
            case Pong(number=number, activity=activity):
                self._ponged, self._answered_at, self._activity = number, time.monotonic(), activity
                self._count(message.usage)
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
            case EndForGood(reason=reason):
                self.on_end_for_good(reason)
            case Ended():
                self._count(message.usage)
                self._ended = message
                self._started.set()
                self._over.set()
            case _:
                self.kill(f"the agent's process sent a {message.kind} message, which is the host's to send")

    def _count(self, usage: UsageSums | None) -> None:
        if usage is not None:
            self.on_usage(usage)

    def _log(self, log: Log) -> None:
        target = logging.getLogger(log.name)
        if not target.isEnabledFor(log.level):
            return
        error = log.error.rebuilt() if log.error is not None else None
        fields = {name: value for name, value in log.fields.items() if name not in _STANDARD}
        facts = {
            "name": log.name,
            "levelno": log.level,
            "levelname": logging.getLevelName(log.level),
            "msg": log.text,
            "created": log.created,
            "pathname": log.where,
            "filename": Path(log.where).name,
            "lineno": log.line,
            "process": self.pid,
            "exc_info": None if error is None else (type(error), error, None),
        }
        target.handle(logging.makeLogRecord({**fields, **facts}))


def memory_of(pid: int) -> int:
    """The resident memory of a process in bytes; 0 when there is none such."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def _reap_group(pid: int) -> None:
    """Bury those of an ended process's group that have become this process's children."""
    # Which happens to orphans while a child is forked, see `process_template`; else they are init's.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-pid, os.WNOHANG)[0]:
            pass


async def _boot(sock: int, dump_fd: int) -> tuple[Reapable, int]:
    return begin_interpreter(_CHILD, sock, dump_fd)


def begin_interpreter(code: str, *descriptors: int) -> tuple[subprocess.Popen[bytes], int]:
    """A child that runs this code, with these descriptors as its arguments, and a pidfd to await its end by."""
    # Popen rather than asyncio's: the process is left unreaped until its group has been killed, see `_on_exit`.
    popen = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, *_interpreter_flags(), "-c", code, *map(str, descriptors)],
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


def _interpreter_flags() -> list[str]:
    # What multiprocessing uses, too: -O, -W, -X … of this interpreter.
    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]  # noqa: SLF001
