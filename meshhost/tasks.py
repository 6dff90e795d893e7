"""Owned background tasks.

Prefer an `asyncio.TaskGroup`. A `TaskOwner` is for objects whose `start()` and `stop()` are called apart, where no block of
code spans the life of the task. It keeps the reference, names the task, reports a crash to whoever waits, and ends all its
tasks within a deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LightEvent", "TaskOwner", "uninterrupted", "unless", "until"]

T = TypeVar("T")


class LightEvent:
    """An `asyncio.Event` for objects of which there are many: it takes 56 bytes until somebody waits, not 760.

    It also calls back, so that one waiting task can do for several events.
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
        """Let go who waits, and who comes."""
        self._is_set = True
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            callback()

    def clear(self) -> None:
        """Let those wait who come from now on."""
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
        """What is done when it is set; to await it keeps no frame of `wait`. One who gives up cancels it."""
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
    """Await something that must not be cut short by our own cancellation, at most `timeout` seconds.

    When cancelled meanwhile, even more than once, waits for the end all the same and then lets the cancellation through;
    an error of the work is its cause. Raises TimeoutError at the deadline, where the work is cancelled.
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


async def until(event: LightEvent, work: Coroutine[Any, Any, T]) -> T | None:
    """Await the work and return or raise what it does, unless the event is set first: then it is cancelled, and None returned.

    It does not run on when this returns, also when this is cancelled. When both come at once the work counts.
    """
    task = asyncio.ensure_future(work)
    over = LightEvent()
    event.on_set(over.set)
    task.add_done_callback(lambda _: over.set())
    try:
        await over.waiter()
        return task.result() if task.done() else None
    finally:
        event.off_set(over.set)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost


async def unless(main: Coroutine[Any, Any, T], stop: Coroutine[Any, Any, object]) -> T | None:
    """Await `main` and return or raise what it does, unless `stop` ends first: then `main` is cancelled, and None returned.

    When `stop` raises, so does this. Neither runs on when this returns, also when it is cancelled. When both end at once
    `main` counts.
    """
    first, second = asyncio.ensure_future(main), asyncio.ensure_future(stop)
    try:
        await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            return first.result()
        second.result()
        return None
    finally:
        first.cancel()
        second.cancel()
        await asyncio.wait({first, second})
        for task in (first, second):
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not report it as lost
