"""`FairPool`: threads for work that needs the CPU, in which voice calls take turns.

Recognising a sentence takes a second of CPU; on the event loop it would stop every other agent of the process. Here it runs in
a fixed number of threads, which are shared by all voice calls of the process. When several calls have work waiting, each gets
one piece done before any gets its second, so that a caller who talks without a break does not make the others wait longer
than their turn. What one call has waiting is bounded.

`run` is called on an event loop, any of them; `_work` is what the threads do. All state is guarded by one lock. A piece of work
whose caller was cancelled is not begun; one that has begun runs to its end, as Python has no means to stop it. The threads are
daemons and start at first use.
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from meshhost.errors import LimitExceededError

__all__ = ["FairPool"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    call: Callable[[], Any]
    result: Future[Any]


class FairPool:
    """At most `threads` pieces of work at a time, at most `max_waiting` waiting for one call."""

    def __init__(self, name: str, *, threads: int, max_waiting: int = 64) -> None:
        self._name = name
        self._threads = threads
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._changed = threading.Condition()
        self._started = 0
        self._idle = 0

    def __repr__(self) -> str:
        return f"<FairPool {self._name!r} threads={self._threads} calls_waiting={len(self._waiting)}>"

    async def run(self, call_id: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in a thread, in the turn of this call. Raises LimitExceededError when too much of it waits."""
        job = _Job(partial(function, *args, **kwargs), Future())
        with self._changed:
            queue = self._waiting.setdefault(call_id, deque())
            if len(queue) >= self._max_waiting:
                raise LimitExceededError(f"{len(queue)} pieces of work of one voice call wait for {self._name}")
            queue.append(job)
            if not self._idle and self._started < self._threads:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
            self._changed.notify()
        result: T = await asyncio.wrap_future(job.result)
        return result

    def _work(self) -> None:
        while True:
            job = self._next()
            if not job.result.set_running_or_notify_cancel():
                continue
            try:
                job.result.set_result(job.call())
            except BaseException as error:  # noqa: BLE001 - the awaiting call gets it; the thread serves other calls
                job.result.set_exception(error)
            # Nothing of a call is kept while the thread waits for the next.
            del job

    def _next(self) -> _Job:
        with self._changed:
            while not self._waiting:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            call_id, queue = self._waiting.popitem(last=False)
            job = queue.popleft()
            if queue:
                self._waiting[call_id] = queue
            return job
