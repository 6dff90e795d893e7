"""Keeps the exits of code that is not ours with the agent whose code it is.

asyncio treats SystemExit and KeyboardInterrupt of any task as meant for the whole program: the event loop stops, and a host
ends with all its agents because one of them parsed its arguments with argparse. Inside an agent such an exit is a fault of that
agent. A signal never arrives here as KeyboardInterrupt: `signals.py` handles it.

A program that runs agents calls `contain_exits` on its loop, and names in the context of each agent what its exits do
(`exits_go_to`). From then on each task that is made in that context, by us, a library or the agent's own code, turns what is no
Exception into a MeshhostError. An exit that nobody awaits is reported as the crash of the agent. Code that calls an agent's
handler directly asks `is_contained` what to do with an error. Outside of agents nothing changes: a plain program that calls
`sys.exit()` in a handler ends.

Cancellation is never touched where it was requested. A CancelledError that foreign code raises without such a request
counts as its error in `is_contained`; a task that ends with one is cancelled, as always.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any

from meshhost.errors import MeshhostError

__all__ = ["as_exception", "contain_exits", "exits_go_to", "is_contained", "is_requested"]

_UNCLAIMED_SECONDS = 1.0

Crash = Callable[[Exception], None]

_crash: ContextVar[Crash | None] = ContextVar("meshhost_crash", default=None)


def exits_go_to(crash: Crash) -> None:
    """Exits in this context, and in tasks made from here on, are reported to `crash`, which must not raise.

    Call it in a task that runs nothing but one agent: the context belongs to the task, so nothing has to be undone.
    """
    _crash.set(crash)


def contain_exits(loop: asyncio.AbstractEventLoop, *, unclaimed_seconds: float = _UNCLAIMED_SECONDS) -> None:
    """Contain the exits of all tasks of agents that this loop makes from now on. Idempotent; keeps a task factory of others.

    An exit in a task waits `unclaimed_seconds` for someone who awaits the task; then it is the crash of the agent.
    """
    factory = loop.get_task_factory()
    if not isinstance(factory, _TaskFactory):
        loop.set_task_factory(_TaskFactory(factory, unclaimed_seconds))


def as_exception(error: BaseException) -> Exception:
    """The error as one that `except Exception` catches; the original is its cause."""
    if isinstance(error, Exception):
        return error
    crash = MeshhostError(f"the agent raised {type(error).__name__}")
    crash.__cause__ = error
    return crash


def is_requested(error: BaseException) -> bool:
    """Whether this is the end that was requested of the running task or generator, and no error of the code in it."""
    if not isinstance(error, asyncio.CancelledError):
        return isinstance(error, GeneratorExit)
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop
        return True
    # Outside of tasks, in a callback of the loop, nothing can be cancelled.
    return task is not None and task.cancelling() > 0


def is_contained(error: BaseException) -> bool:
    """Whether the caller keeps this error of a handler, after logging it; an exit is also reported as the agent's crash.

    False for a requested cancellation, and outside of agents for all that is no Exception: then it must be raised again.
    """
    if isinstance(error, Exception):
        return True
    crash = _crash.get()
    if crash is None or is_requested(error):
        return False
    if isinstance(error, SystemExit | KeyboardInterrupt):
        crash(as_exception(error))
    return True


class _TaskFactory:
    """Makes the tasks of a loop: those in the context of an agent with a contained coroutine, all others as before."""

    def __init__(self, earlier: Callable[..., Any] | None, unclaimed_seconds: float) -> None:
        self.unclaimed_seconds = unclaimed_seconds
        self._make: Callable[..., Any] = earlier if earlier is not None else _plain_task

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        context = options.get("context")
        crash = _crash.get() if context is None else context.get(_crash)
        if crash is not None and asyncio.iscoroutine(coroutine):
            coroutine = _Contained(coroutine, crash)
        return self._make(loop, coroutine, **options)


def _plain_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **options)


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine whose errors are Exceptions.

    A class and not an `async def` around it: it takes 48 bytes instead of a frame, and an idle agent has several. And a task
    that is cancelled before it began still throws the cancellation into the coroutine itself.
    """

    __slots__ = ("_coroutine", "_crash")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], crash: Crash) -> None:
        self._coroutine = coroutine
        self._crash = crash

    def __getattr__(self, name: str) -> Any:
        # For those that show tasks: cr_frame, cr_code, cr_await, __qualname__.
        return getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Go on."""
        try:
            return self._coroutine.send(value)
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            raise self._kept(error) from error

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        try:
            return self._coroutine.throw(*error)
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as raised:
            raise self._kept(raised) from raised

    def close(self) -> None:
        """End it now."""
        try:
            self._coroutine.close()
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            raise as_exception(error) from error

    def _kept(self, error: BaseException) -> Exception:
        kept = as_exception(error)
        task = asyncio.current_task()
        if task is not None and isinstance(error, SystemExit | KeyboardInterrupt):
            loop = asyncio.get_running_loop()
            # Asked here and not kept: there is one of these for each task of each agent.
            factory = loop.get_task_factory()
            seconds = factory.unclaimed_seconds if isinstance(factory, _TaskFactory) else _UNCLAIMED_SECONDS
            loop.call_later(seconds, _report_unclaimed, task, self._crash)
        return kept


def _report_unclaimed(task: asyncio.Task[Any], crash: Crash) -> None:
    # `_log_traceback` of asyncio's futures, since Python 3.4: set with an error, cleared when somebody asks for it. asyncio
    # logs by it when the task is collected, which never happens while the agent keeps it. Without it every exit would count.
    if getattr(task, "_log_traceback", True) and (error := task.exception()) is not None:
        crash(as_exception(error))
