"""What runs one life of an agent: `Child`, the only thing supervision knows of it.

`TaskChild` runs the agent as a task of this event loop; `hosting.processes` runs it in a process of its own, behind the same
protocol. `ChildContext` is the inside of a `TaskChild`: the agent's code reports through it that it runs and reads from it
that it shall leave. `SupervisedAgent` makes the child, starts it and waits for it; drains and operators call `drain` and
`abort`, possibly several of them at once.

A child ends exactly once. Waiting for it, or giving up waiting, never ends it; only `abort` does.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from meshhost.containment import as_exception, is_requested
from meshhost.errors import LifecycleError, MeshhostError
from meshhost.tasks import LightEvent, TaskOwner

__all__ = [
    "MAX_ACTIVITY",
    "Aborted",
    "Child",
    "ChildContext",
    "Crashed",
    "Exit",
    "Exited",
    "Isolation",
    "Run",
    "TaskChild",
    "in_tasks",
]

logger = logging.getLogger(__name__)

MAX_ACTIVITY = 200
"""Characters of a reported activity that are kept."""


@dataclass(frozen=True, slots=True)
class Exited:
    """It returned."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """It raised `error`."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Aborted:
    """It was ended by `abort()`."""


Exit = Exited | Crashed | Aborted


class Child(Protocol):
    """One life of an agent. All methods are idempotent and may be called at any time, by several tasks at once."""

    async def start(self) -> None:
        """Start it and return when it runs, or has ended without an error. Raises the error of a crash before that.

        Cancelling this wait does not end the child.
        """
        ...

    async def wait(self) -> Exit:
        """Wait for its end and return how it ended. Cancelling this wait does not end the child. Raises only LifecycleError."""
        ...

    async def drain(self) -> None:
        """Ask it to finish its work and take no more; return when it has ended. The caller must set a timeout."""
        ...

    def abort(self) -> None:
        """End it soon. Never raises; no effect on a child that has ended."""
        ...

    def activity(self) -> str | None:
        """What it does now, as text for people; None when it does nothing or does not report it. Never raises."""
        ...


class ChildContext:
    """Connects the code inside a child to its supervisor, in both directions.

    `current` is the object that does the child's work now; its attribute `activity`, a text or None, says what that work is.
    `on_started` is called inside `started`, before the agent's code goes on: that code may block the event loop next.
    """

    __slots__ = ("_has_started", "_running", "current", "draining", "on_started")

    def __init__(self) -> None:
        self.current: object = None
        self.on_started: Callable[[], object] | None = None
        self.draining = LightEvent()
        """Set when the agent must finish its work and return."""
        self._has_started = False
        self._running: asyncio.Future[None] | None = None

    def started(self) -> None:
        """Report that the agent is running. Idempotent."""
        if self.on_started is not None and not self._has_started:
            self.on_started()
        self._has_started = True
        self.wake()

    def activity(self) -> str | None:
        """What the child does now, as text for people. Never raises."""
        try:
            text = getattr(self.current, "activity", None)
        except BaseException:  # noqa: BLE001 - a property of an agent's own class may fail in any way, nothing is awaited
            return None
        if isinstance(text, str) and text:
            return text[:MAX_ACTIVITY]
        return None if self._has_started or not self.draining.is_set() else "its start"

    def leave(self) -> None:
        """Set `draining`."""
        self.draining.set()

    def wake(self) -> None:
        """Release those that wait in `wait_started`."""
        if self._running is not None and not self._running.done():
            self._running.set_result(None)

    async def wait_started(self) -> None:
        """Return when `started` or `wake` was called."""
        if self._has_started:
            return
        if self._running is None:
            self._running = asyncio.get_running_loop().create_future()
        # wait(), not await: a cancelled waiter must not cancel the future of the others.
        await asyncio.wait({self._running})


Run = Callable[[ChildContext], Awaitable[None]]
Isolation = Callable[[Run, str], Child]


class TaskChild:
    """Runs an agent as a task of this event loop; `owner` holds the task (default: an owner of its own)."""

    __slots__ = ("_aborted", "_context", "_name", "_over", "_owner", "_run", "_task")

    def __init__(self, run: Run, name: str, *, owner: TaskOwner | None = None) -> None:
        self._run = run
        self._name = name
        self._owner = owner if owner is not None else TaskOwner("agent")
        self._context = ChildContext()
        self._task: asyncio.Task[Exit] | None = None
        self._over = LightEvent()
        self._aborted = False

    def __repr__(self) -> str:
        return f"<TaskChild {self._name!r} task={self._task!r}>"

    async def start(self) -> None:
        """Start it and return when the agent called `started()` or returned. Raises what the agent raised before that."""
        if self._task is None:
            if self._aborted:
                return
            self._task = self._owner.spawn(self._body(), name=self._name)
            self._task.add_done_callback(self._ended)
        await self._context.wait_started()
        if self._task.done() and isinstance(ending := self._exit(self._task), Crashed):
            raise ending.error

    async def wait(self) -> Exit:
        """Wait for its end and return how it ended. Raises LifecycleError when it was never started."""
        if self._task is None:
            if self._aborted:
                return Aborted()
            raise LifecycleError("a child must be started before one can wait for its end")
        if not self._task.done():
            await self._over.waiter()
        return self._exit(self._task)

    async def drain(self) -> None:
        """Set `draining` and return when the agent has returned."""
        self._context.leave()
        if self._task is not None and not self._task.done():
            await self._over.waiter()

    def abort(self) -> None:
        """Cancel the task, once: a second cancellation would interrupt the cleanup after the first."""
        if self._aborted or (self._task is not None and self._task.done()):
            return
        self._aborted = True
        if self._task is not None:
            self._task.cancel()

    def activity(self) -> str | None:
        """What its agent reports that it does, while it runs."""
        return None if self._task is None or self._task.done() else self._context.activity()

    async def _body(self) -> Exit:
        try:
            await self._run(self._context)
        except BaseException as error:
            # Whatever an agent raises is that agent's crash: its sys.exit() must not end its neighbours. A user's Ctrl-C is no
            # KeyboardInterrupt here, since hosts handle the signal.
            if is_requested(error):
                raise
            if isinstance(error, asyncio.CancelledError):
                return Crashed(MeshhostError("the agent was cancelled by its own code"))
            return Crashed(as_exception(error))
        return Exited()

    def _ended(self, task: asyncio.Task[Exit]) -> None:
        self._context.wake()
        self._over.set()
        if self._aborted and not task.cancelled() and isinstance(ending := task.result(), Crashed):
            logger.warning("agent raised while it was aborted", exc_info=ending.error, extra={"agent": self._name})

    def _exit(self, task: asyncio.Task[Exit]) -> Exit:
        if self._aborted:
            return Aborted()
        if task.cancelled():
            # We did not cancel it: a cancellation inside the agent's code escaped and ended it.
            return Crashed(MeshhostError("the agent was cancelled by its own code"))
        return task.result()


def in_tasks() -> Isolation:
    """A factory of children that are tasks of this event loop and share one owner."""
    return functools.partial(TaskChild, owner=TaskOwner("agent"))
