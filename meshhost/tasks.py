"""Tasks that have an owner, and waits that say what ended them.

asyncio keeps only weak references to tasks and loses the errors of those that nobody awaits. Prefer an `asyncio.TaskGroup`;
a `TaskOwner` is for objects whose `start()` and `stop()` are separate calls, so that no block of code spans the life of the
task. It holds the reference, names the task, raises its crash in `wait()`, and ends all its tasks within a deadline.

`first_of` and `until` run a piece of work until something else happens and return which of the two came first. In both, the
work never runs on after the call has returned, also when the caller is cancelled. `uninterrupted` is the opposite: it
shields a short piece of work, such as settling a message, from our own cancellation.

This module is a leaf: every layer above uses it, and it imports nothing of this package.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["LightEvent", "Stopped", "TaskOwner", "Won", "first_of", "uninterrupted", "until"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Won(Generic[T_co]):
    """The work ended first, with this result."""

    result: T_co


@dataclass(frozen=True, slots=True)
class Stopped:
    """What was to stop the work came first; the work was cancelled and has ended."""


class LightEvent:
    """An `asyncio.Event` for objects that exist in thousands: it takes 56 bytes until a task waits for it, not 760.

    It also calls back when it is set, so that one task can wait for several events.
    """

    __slots__ = ("_callbacks", "_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._callbacks: tuple[Callable[[], object], ...] = ()
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def __repr__(self) -> str:
        return f"<LightEvent {'set' if self._is_set else 'unset'} waiting={sum(not each.done() for each in self._waiters)}>"

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Release all waiters, now and later, and call the callbacks once."""
        self._is_set = True
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            callback()

    def clear(self) -> None:
        """Make later waiters wait again."""
        self._is_set = False

    def on_set(self, callback: Callable[[], object]) -> None:
        """Call this once when it is set, or at once if it is. The callback must not raise."""
        if self._is_set:
            callback()
        else:
            self._callbacks = (*self._callbacks, callback)

    def off_set(self, callback: Callable[[], object]) -> None:
        """Undo `on_set`; an unknown callback is ignored."""
        self._callbacks = tuple(other for other in self._callbacks if other != callback)

    async def wait(self) -> None:
        """Return when it is set."""
        if not self._is_set:
            await self.waiter()

    def waiter(self) -> asyncio.Future[None]:
        """A future that is done when the event is set. Awaiting it saves the frame of `wait`; cancel it to stop waiting."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_set:
            waiter.set_result(None)
        else:
            self._waiters = (*(other for other in self._waiters if not other.done()), waiter)
        return waiter


class TaskOwner:
    """Owns the background tasks of one object; `name` is the prefix of their names."""

    __slots__ = ("_changed", "_crash", "_name", "_tasks")

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._crash: BaseException | None = None
        self._changed = LightEvent()

    def __repr__(self) -> str:
        return f"<TaskOwner {self._name!r} tasks={len(self._tasks)} crash={self._crash!r}>"

    def spawn(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run the coroutine in the background."""
        task = asyncio.create_task(coroutine, name=f"{self._name} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def wait(self) -> None:
        """Return when no task is left; raise what the first task to crash raised, as soon as it does."""
        while self._tasks and self._crash is None:
            self._changed.clear()
            await self._changed.wait()
        if self._crash is not None:
            raise self._crash

    async def stop(self, *, timeout: float = 10.0) -> list[str]:
        """Cancel all tasks and wait at most `timeout` seconds. Returns the names of those that would not end."""
        for task in self._tasks:
            task.cancel()
        if not self._tasks:
            return []
        _, left = await asyncio.wait(set(self._tasks), timeout=timeout)
        return sorted(task.get_name() for task in left)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None and self._crash is None:
            self._crash = error


async def uninterrupted(awaitable: Awaitable[T], *, timeout: float = 10.0) -> T:
    """Await work that our own cancellation must not interrupt, for at most `timeout` seconds.

    When the caller is cancelled meanwhile, even more than once, this still waits for the work and then raises the
    cancellation, with an error of the work as its cause. At the deadline the work is cancelled and TimeoutError raised.
    """
    task = asyncio.ensure_future(awaitable)
    deadline = asyncio.get_running_loop().time() + timeout
    cancellation = await _ended(task, deadline)
    in_time = task.done()
    task.cancel()
    if cancellation is not None:
        raise cancellation from (task.exception() if in_time and not task.cancelled() else None)
    if not in_time:
        raise TimeoutError
    return task.result()


async def _ended(task: asyncio.Future[Any], deadline: float) -> asyncio.CancelledError | None:
    """Wait for the task until the deadline on the loop's clock; return our last cancellation meanwhile, if any."""
    cancellation = None
    loop = asyncio.get_running_loop()
    while not task.done() and (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as error:
            cancellation = error
    return cancellation


async def until(event: LightEvent, work: Awaitable[T]) -> Won[T] | Stopped:
    """Await the work until the event is set; return which came first, or raise what the work raised.

    When both happen in the same turn of the loop, the work counts. Costs one task, where `first_of` costs two.
    """
    task = asyncio.ensure_future(work)
    over = LightEvent()
    event.on_set(over.set)
    task.add_done_callback(lambda _: over.set())
    try:
        await over.waiter()
        return Won(task.result()) if task.done() else Stopped()
    finally:
        event.off_set(over.set)
        await _end(task)


async def first_of(work: Awaitable[T], stop: Awaitable[object]) -> Won[T] | Stopped:
    """Await the work until `stop` returns; return which came first, or raise what the first to end raised.

    When both end in the same turn of the loop, the work counts.
    """
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop)
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return Won(working.result())
        stopping.result()
        return Stopped()
    finally:
        await _end(working, stopping)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would log it as never retrieved
