"""The code inside an agent's process.

`main` runs the host's program again, as it was started. Where the program comes to `ServiceHost.run()` (or `start()`), it is
this module's turn: prewarm, report ready, wait for the one call, live through it, exit. So whatever stands before `run()`
runs in every process; what follows it does not.

The parent may vanish at any time. A thread of its own waits for that, so that a blocked event loop does not outlive its
host; the whole process group goes, with what the agent has started.
"""

import asyncio
import contextlib
import faulthandler
import inspect
import logging
import os
import queue
import runpy
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from opentelemetry import context as trace_context
from opentelemetry import propagate

from meshhost.errors import MeshhostError, RemoteProtocolError, SettingsError
from meshhost.hosting.agents.assignment import Assignment, CallRequest
from meshhost.hosting.agents.life import AgentLife
from meshhost.hosting.processes.messages import (
    Abort,
    Assign,
    Boot,
    BootFailed,
    Call,
    Drain,
    Ended,
    EndForGood,
    FrameReader,
    Log,
    Message,
    Ping,
    Pong,
    Ready,
    RemoteError,
    Renew,
    Started,
    encode,
    sendable,
)
from meshhost.identity.tenant import TenantId
from meshhost.logs import ContextFilter, log_context
from meshhost.supervision.isolation import Aborted, ChildContext, Crashed, Exit, TaskChild
from meshhost.tasks import TaskOwner
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.usage import Tally, UsageSums, reporting_to

__all__ = [
    "Channel",
    "ChannelHandler",
    "ChildRole",
    "Role",
    "begin",
    "current_role",
    "end_group",
    "main",
    "never_came",
    "prepare",
    "read_boot",
    "run_program",
    "take_role",
]

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
_READ_BYTES = 65_536
_MAX_WAITING_RECORDS = 10_000
# The kernel, when short of memory, takes an agent before its host.
_OOM_SCORE = "500"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Role(Protocol):
    """What a process is for that runs a host's program again."""

    has_served: bool

    async def serve(self, classes: Mapping[str, Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> NoReturn:
        """The program came to a host with these classes by path, and these prewarm hooks: be what this process is for."""

    def leave(self, message: Message) -> NoReturn:
        """Send the last message, and unwind the program."""


_role: Role | None = None


def current_role() -> Role | None:
    """The role of this process when it is an agent's or a template, None in a host."""
    return _role


def take_role(role: Role) -> None:
    """From now on this is the role of this process."""
    global _role  # noqa: PLW0603 - the process is what has the role
    _role = role


class Channel:
    """The socket to the host: sending never waits, receiving is a thread's work."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._outbox: queue.SimpleQueue[Message | threading.Event] = queue.SimpleQueue()
        self._dropped = 0

    def open(
        self, receive: Callable[[Message], None], reader: FrameReader, beat: Callable[[], None], every: float
    ) -> None:
        """Begin; `receive` is called in a thread, and `beat` there, too, `every` so many seconds at least.

        When the host is gone the process group ends.
        """
        threading.Thread(target=self._write, name="meshhost to host", daemon=True).start()
        reading = (receive, reader, beat, every)
        threading.Thread(target=self._read, args=reading, name="meshhost from host", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send, soon."""
        self._outbox.put(message)

    def send_log(self, message: Log) -> None:
        """Send, unless so many records wait that the host cannot keep up."""
        if self._outbox.qsize() > _MAX_WAITING_RECORDS:
            self._dropped += 1
        else:
            self._outbox.put(message)

    def flush(self) -> None:
        """Return when what was sent before is with the host, or after FLUSH_SECONDS."""
        reached = threading.Event()
        self._outbox.put(reached)
        reached.wait(FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            message = self._outbox.get()
            if isinstance(message, threading.Event):
                message.set()
                continue
            if self._dropped and isinstance(message, Log):
                message.fields["records_dropped"], self._dropped = self._dropped, 0
            with contextlib.suppress(OSError, ValueError):
                self._sock.sendall(encode(message))

    def _read(
        self, receive: Callable[[Message], None], reader: FrameReader, beat: Callable[[], None], every: float
    ) -> None:
        with contextlib.suppress(OSError, RemoteProtocolError):
            while True:
                beat()
                if not select.select([self._sock], [], [], every)[0]:
                    continue
                if not (data := self._sock.recv(_READ_BYTES)):
                    break
                for message in reader.feed(data):
                    receive(message)
        end_group()


def end_group() -> NoReturn:
    """End this process and all that it started."""
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


class ChannelHandler(logging.Handler):
    """Hands log records to `send`. `fields` mark those that carry no context of their own."""

    def __init__(self, send: Callable[[Log], None]) -> None:
        super().__init__()
        self._send = send
        self.fields: Mapping[str, str] = {}
        self.addFilter(ContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record; never raises."""
        try:
            self._send(self._described(record))
        except Exception:  # noqa: BLE001 - logging must not fail who logs
            self.handleError(record)

    def _described(self, record: logging.LogRecord) -> Log:
        fields = {name: _plain(value) for name, value in vars(record).items() if name not in _OWN}
        error = record.exc_info[1] if record.exc_info else None
        return Log(
            name=record.name,
            level=record.levelno,
            text=sendable(record.getMessage()),
            created=record.created,
            where=record.pathname,
            line=record.lineno,
            fields={**self.fields, **fields},
            error=None if error is None else RemoteError.of(error),
        )


def _plain(value: object) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, int | float | bool) else sendable(str(value))


@dataclass(slots=True)
class _ChildAssignment(Assignment):
    """A visit whose supervisor is in the host."""

    send: Callable[[Message], None] = lambda _: None

    def end_for_good(self, reason: str) -> None:
        """What comes now is the end, not a crash: the host is told."""
        self.send(EndForGood(reason))


class ChildRole:
    """What this process is for: one agent of one of the boot's paths."""

    def __init__(self, channel: Channel, handler: ChannelHandler, boot: Boot, dump_fd: int) -> None:
        self._channel = channel
        self._handler = handler
        self._boot = boot
        self._dump_fd = dump_fd
        self._began = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._assigned: asyncio.Future[Assign] | None = None
        self._visit: _ChildAssignment | None = None
        self._child: TaskChild | None = None
        self._tasks = TaskOwner("agent process")
        self._usage = Tally()
        self.has_served = False

    def receive(self, message: Message) -> None:
        """A message of the host came; called in a thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are leaving
                self._loop.call_soon_threadsafe(self._handle, message)

    def beat(self) -> None:
        """Some thread still runs; without that for `silence_seconds` the process ends."""
        # In C and without the interpreter's lock: the last resort against code that never lets go of it, when no host is
        # left to kill it.
        faulthandler.dump_traceback_later(self._boot.silence_seconds, exit=True, file=self._dump_fd)

    async def serve(self, classes: Mapping[str, Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> NoReturn:
        """Live one life of an agent of these classes by path, after the prewarm hooks; then SystemExit.

        Waits for ever when the host means another one's paths.
        """
        if not set(self._boot.paths) <= set(classes) or self.has_served:
            await asyncio.Event().wait()
        self.has_served = True
        self._loop = asyncio.get_running_loop()
        self._assigned = self._loop.create_future()
        try:
            await _prewarm([classes[path] for path in self._boot.paths], hooks)
        except Exception as error:  # noqa: BLE001 - whatever a hook raises is reported to the host
            self.leave(BootFailed(RemoteError.of(error)))
        self._channel.send(Ready(time.monotonic() - self._began))
        assign = await self._assigned
        ending = await self._live(assign, classes)
        await self._tasks.stop(timeout=FLUSH_SECONDS)
        self.leave(_ended(ending, self._usage.take()))

    def leave(self, message: Message) -> NoReturn:
        """Send the last message, and unwind the program."""
        self._channel.send(message)
        self._channel.flush()
        raise SystemExit(0)

    async def _live(self, assign: Assign, classes: Mapping[str, Callable[..., Any]]) -> Exit:
        call = assign.call
        protocol = WebSocketClientProtocol(url=call.room_url, token=call.token)
        self._visit = _ChildAssignment(_request(call), protocol, id=assign.call_id, send=self._channel.send)
        self._handler.fields = assign.log_fields
        trace_context.attach(propagate.extract(assign.trace))
        cls = classes.get(assign.path)
        if cls is None:
            return Crashed(SettingsError(f"the program binds no path {assign.path} before it runs its host"))
        with log_context(**assign.log_fields), reporting_to(self._usage):
            life = AgentLife(cls, self._visit, grace=assign.grace)
            self._child = TaskChild(lambda child: self._run(life, child), call.identity)
            # What a start raised is told by `wait`, too.
            with contextlib.suppress(Exception):
                await self._child.start()
            return await self._child.wait()

    def _run(self, life: AgentLife, child: ChildContext) -> Awaitable[None]:
        # From within: an agent that holds the event loop from then on is one that runs.
        child.on_started = lambda: self._channel.send(Started())
        return life.run(child)

    def _handle(self, message: Message) -> None:
        match message:
            case Ping(number=number):
                self._channel.send(Pong(number, self._activity(), self._usage.take()))
            case Assign() if self._assigned is not None and not self._assigned.done():
                self._assigned.set_result(message)
            case Renew(call=call) if self._visit is not None:
                self._visit.renew(_request(call))
            case Drain() if self._child is not None:
                self._tasks.spawn(self._child.drain(), name="drain")
            case Abort() if self._child is not None:
                self._child.abort()
            case _:
                logger.debug("message of the host came at the wrong time", extra={"kind": message.kind})

    def _activity(self) -> str | None:
        text = None if self._child is None else self._child.activity()
        return None if text is None else sendable(text)


def _ended(ending: Exit, usage: UsageSums | None) -> Ended:
    if isinstance(ending, Crashed):
        return Ended(RemoteError.of(ending.error), usage)
    if isinstance(ending, Aborted):
        return Ended(RemoteError("MeshhostError", "the agent was aborted"), usage)
    return Ended(usage=usage)


def _request(call: Call) -> CallRequest:
    return CallRequest(
        tenant=TenantId(call.tenant),
        room_name=call.room_name,
        room_url=call.room_url,
        identity=call.identity,
        arguments=call.arguments,
        expires_at=call.expires_at,
        token=call.token,
    )


async def _prewarm(classes: Iterable[Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> None:
    of_classes = [hook for cls in classes if (hook := getattr(cls, "prewarm", None)) is not None]
    for hook in (*hooks, *of_classes):
        result = hook()
        if inspect.isawaitable(result):
            await result


def main() -> None:
    """Be an agent's process: `python -c 'import …; main()' <socket> <pipe for stack dumps>`."""
    role, boot = begin(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    run_program(role, boot)


def begin(sock: socket.socket, dump_fd: int) -> tuple[ChildRole, Boot]:
    """Take the role of an agent's process whose host is at the other end of the socket."""
    for descriptor in (sock.fileno(), dump_fd):
        os.set_inheritable(descriptor, False)
    boot, reader = read_boot(sock)
    prepare(dump_fd)
    channel = Channel(sock)
    handler = ChannelHandler(channel.send_log)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(boot.log_level)
    role = ChildRole(channel, handler, boot, dump_fd)
    take_role(role)
    channel.open(role.receive, reader, role.beat, boot.silence_seconds / 4)
    return role, boot


def prepare(dump_fd: int) -> None:
    """Dump stacks there on SIGUSR1, and be ended before the host when memory is short."""
    faulthandler.register(signal.SIGUSR1, file=dump_fd, all_threads=True)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def read_boot(sock: socket.socket) -> tuple[Boot, FrameReader]:
    """The host's first message, and the reader of the next ones. Ends the process when the host is gone."""
    reader = FrameReader()
    while data := sock.recv(_READ_BYTES):
        for message in reader.feed(data):
            if isinstance(message, Boot):
                return message, reader
    end_group()


def run_program(role: Role, boot: Boot) -> None:
    """Run the program up to its host; what keeps it from coming there is told to the host."""
    sys.argv, sys.path[:] = boot.argv, boot.path
    try:
        if boot.is_module:
            runpy.run_module(boot.program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(boot.program, run_name="__main__")
    except BaseException as error:
        if role.has_served:
            raise
        role.leave(BootFailed(RemoteError.of(error)))
    if not role.has_served:
        role.leave(never_came(boot))


def never_came(boot: Boot) -> BootFailed:
    """What is told when the program has no host with the boot's paths."""
    missing = MeshhostError(f"the program ended without running a ServiceHost with the paths {boot.paths}")
    return BootFailed(RemoteError.of(missing))
