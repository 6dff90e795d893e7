"""Keeps what a program's code raises inside the message or call that it belongs to.

Programs give us their code to run: hooks, tools, asks. What such code raises must fail that piece of work and nothing else.
Catching `Exception` is not enough. `sys.exit()` raises SystemExit, and asyncio ends the whole loop, with all other agents in
it, when a task raises SystemExit or KeyboardInterrupt. Extensions written in Rust panic with a BaseException of their own. And
CancelledError, raised by the code itself, looks like our own cancellation, so the work would end uncounted and unlogged.

`guarding` turns all of these into an EscapedError, which is an Exception. Use it inside the coroutine that runs the program's
code, before the error reaches the task around it; `guarded` is the same for an awaitable that is run as a task of its own. Our
own cancellation passes: it is told from the code's by `task.cancelling()`.

`call` calls such code, which may be plain or async. Plain code runs in a thread, so that it does not hold the event loop; when
we are cancelled, the thread goes on to its end, as Python has no means to stop it.

This module is a leaf: every layer above uses it, and it imports nothing of this package.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["EscapedError", "call", "guarded", "guarding", "is_cancelled"]

T = TypeVar("T")


class EscapedError(Exception):
    """The program's code raised what is no Exception; the original is the cause."""

    def __init__(self, error: BaseException) -> None:
        name = type(error).__name__
        self.is_cancellation = isinstance(error, asyncio.CancelledError)
        super().__init__(
            "cancelled by its own code" if self.is_cancellation else f"{name}: {error}" if str(error) else name
        )


def is_cancelled() -> bool:
    """Whether the current task was asked to end, rather than the code in it having raised CancelledError."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return False
    return task is not None and task.cancelling() > 0


class _Guard:
    """What `guarding` returns. It keeps nothing, so that there is one for all."""

    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception | GeneratorExit):
            return
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            return
        raise EscapedError(error) from error


_GUARD = _Guard()


def guarding() -> AbstractContextManager[None, None]:
    """Run code of the program. Raises EscapedError for what is no Exception, unless it is our own cancellation."""
    return _GUARD


async def guarded(awaitable: Awaitable[T]) -> T:
    """Await code of the program under `guarding`."""
    with guarding():
        return await awaitable


async def call(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call code of the program and return its result. What is not an `async def` is called in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(**arguments)
    result = await asyncio.to_thread(function, **arguments)
    return await result if inspect.isawaitable(result) else result
