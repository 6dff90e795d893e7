"""The role of an agent's process: prewarm, report ready, wait for the one call, run the agent, exit.

The program's own `ServiceHost.run()` calls `AgentRole.serve`, so everything here runs in the program's event loop, in its main
thread: whatever stands before `run()` in the program has run in this process, and whatever follows it never does, because
`serve` ends with SystemExit. Messages of the host arrive in the channel's thread and are passed on to the loop, where `_handle`
takes them.

The agent is supervised by the host. In here it is a `TaskChild` that runs once: a drain and an abort of the host are passed on
to it, and its end is the last message, with the error that it crashed with.
"""

import asyncio
import contextlib
import faulthandler
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from opentelemetry import context as trace_context
from opentelemetry import propagate

from meshhost.containment import contain_exits, is_requested
from meshhost.errors import SettingsError
from meshhost.hosting.agents.assignment import Assignment, CallRequest
from meshhost.hosting.agents.life import AgentLife
from meshhost.hosting.processes.child.channel import FLUSH_SECONDS, Channel
from meshhost.hosting.processes.child.log_handler import ChannelHandler
from meshhost.hosting.processes.messages import (
    Abort,
    Assign,
    Boot,
    BootFailed,
    Call,
    Drain,
    Ended,
    EndForGood,
    Message,
    Ping,
    Pong,
    Ready,
    RemoteError,
    Renew,
    Started,
    sendable,
)
from meshhost.hosting.threads import leave, threads_end
from meshhost.identity.tenant import TenantId
from meshhost.logs import log_context
from meshhost.supervision.isolation import Aborted, ChildContext, Crashed, Exit, TaskChild
from meshhost.tasks import TaskOwner
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.usage import Tally, UsageSums, reporting_to

__all__ = ["AgentRole"]

THREAD_SECONDS = 1.5
"""How long threads of an agent that has ended may go on: less than the host lets the process take to exit (EXIT_SECONDS)."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _ChildAssignment(Assignment):
    """An assignment whose supervisor is in the host."""

    send: Callable[[Message], None] = lambda _: None
    renewals: int = 0

    def renew(self, request: CallRequest) -> None:
        """See Assignment."""
        self.renewals += 1
        # Without super(): it does not work in a dataclass with slots.
        Assignment.renew(self, request)

    def end_for_good(self, reason: str) -> None:
        """Tell the host that the agent ends now and must not be started again."""
        self.send(EndForGood(reason, self.renewals))


class AgentRole:
    """Runs one agent of one of the boot's paths. `dump_fd` is the pipe on which the host reads stack dumps."""

    def __init__(self, channel: Channel, handler: ChannelHandler, boot: Boot, dump_fd: int) -> None:
        self._channel = channel
        self._handler = handler
        self._boot = boot
        self._dump_fd = dump_fd
        self._began = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._assigned: asyncio.Future[Assign] | None = None
        self._assignment: _ChildAssignment | None = None
        self._child: TaskChild | None = None
        self._tasks = TaskOwner("agent process")
        self._usage = Tally()
        self.has_served = False

    def receive(self, message: Message) -> None:
        """Take a message of the host. Called in the channel's thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to exit
                self._loop.call_soon_threadsafe(self._handle, message)

    def beat(self) -> None:
        """Prove that threads of this process still run: unless it is called for `silence_seconds`, the process ends.

        Called in the channel's thread.
        """
        # The timer of faulthandler is a thread in C that needs no interpreter lock. It is the last resort against code that
        # never releases that lock, when there is no host left to kill this process.
        faulthandler.dump_traceback_later(self._boot.silence_seconds, exit=True, file=self._dump_fd)

    async def serve(self, classes: Mapping[str, Callable[..., Any]], hooks: Iterable[Callable[[], Any]]) -> NoReturn:
        """Run the prewarm hooks, then one agent, then raise SystemExit.

        A program may have several hosts; all that do not bind the boot's paths wait here forever.
        """
        if not set(self._boot.paths) <= set(classes) or self.has_served:
            await asyncio.Event().wait()
        self.has_served = True
        self._loop = asyncio.get_running_loop()
        # Here an exit could end no neighbour; but the host shall learn who called it, and the agent leave its room in order.
        contain_exits(self._loop)
        self._assigned = self._loop.create_future()
        try:
            await _prewarm([classes[path] for path in self._boot.paths], hooks)
        except BaseException as error:  # whatever a hook raises is reported to the host
            if is_requested(error):
                raise
            self.leave(BootFailed(RemoteError.of(error)))
        self._channel.send(Ready(time.monotonic() - self._began))
        assign = await self._assigned
        ending = await self._live(assign, classes)
        await self._tasks.stop(timeout=FLUSH_SECONDS)
        # The host learns first that the agent has ended, then has nothing to wait for but the end of this process.
        self._channel.send(_ended(ending, self._usage.take()))
        if not await threads_end(THREAD_SECONDS):
            self._channel.flush()
            leave()
        self._channel.flush()
        raise SystemExit(0)

    def leave(self, message: Message) -> NoReturn:
        """Send the last message, and end the program by SystemExit."""
        self._channel.send(message)
        self._channel.flush()
        raise SystemExit(0)

    async def _live(self, assign: Assign, classes: Mapping[str, Callable[..., Any]]) -> Exit:
        call = assign.call
        protocol = WebSocketClientProtocol(url=call.room_url, token=call.token)
        self._assignment = _ChildAssignment(_request(call), protocol, id=assign.call_id, send=self._channel.send)
        self._handler.fields = assign.log_fields
        trace_context.attach(propagate.extract(assign.trace))
        cls = classes.get(assign.path)
        if cls is None:
            return Crashed(SettingsError(f"the program binds no path {assign.path} before it runs its host"))
        with log_context(**assign.log_fields), reporting_to(self._usage):
            life = AgentLife(cls, self._assignment, grace=assign.grace)
            self._child = TaskChild(lambda child: self._run(life, child), call.identity)
            # `wait` returns what a start raised, too.
            with contextlib.suppress(Exception):
                await self._child.start()
            return await self._child.wait()

    def _run(self, life: AgentLife, child: ChildContext) -> Awaitable[None]:
        # Sent from within the agent's start: an agent that blocks the event loop right after it must count as running, or
        # the host would not ping it.
        child.on_started = lambda: self._channel.send(Started())
        return life.run(child)

    def _handle(self, message: Message) -> None:
        match message:
            case Ping(number=number):
                self._channel.send(Pong(number, self._activity(), self._usage.take()))
            case Assign() if self._assigned is not None and not self._assigned.done():
                self._assigned.set_result(message)
            case Renew(call=call) if self._assignment is not None:
                self._assignment.renew(_request(call))
            case Drain() if self._child is not None:
                self._tasks.spawn(self._child.drain(), name="drain")
            case Abort() if self._child is not None:
                self._child.abort()
            case _:
                logger.debug("unexpected message of the host is ignored", extra={"kind": message.kind})

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
    """Run the hooks of the host, then the `prewarm` of each class that has one; both may be async."""
    of_classes = [hook for cls in classes if (hook := getattr(cls, "prewarm", None)) is not None]
    for hook in (*hooks, *of_classes):
        result = hook()
        if inspect.isawaitable(result):
            await result
