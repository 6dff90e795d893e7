"""Owned background tasks.

Prefer an `asyncio.TaskGroup`. A `TaskOwner` is for objects whose `start()` and `stop()` are called apart, where no block of
code spans the life of the task. It keeps the reference, names the task, reports a crash to whoever waits, and ends all its
tasks within a deadline.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

__all__ = ["TaskOwner", "uninterrupted"]

T = TypeVar("T")


class TaskOwner:
    """Owns the background tasks of one object; `name` is the prefix of their names."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._crash: BaseException | None = None
        self._changed = asyncio.Event()

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

    When cancelled meanwhile, waits for the result all the same and then lets the cancellation through.
    Raises TimeoutError at the deadline.
    """
    task = asyncio.ensure_future(awaitable)
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(task)
        task.cancel()
        raise
    except TimeoutError:
        task.cancel()
        raise
