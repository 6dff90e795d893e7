"""Gives each tenant's requests a worker process of its own, and the tenants their turns when there are more than processes.

The rules: a tenant has at most one process, in which at most `concurrent` of its requests run; the others wait, at most
`waiting` of them, each for at most `wait_seconds`. There are at most `processes`. A tenant that needs one takes the place of
a tenant that has nothing to do, the longest idle first; when all are busy, tenants wait in the order in which they came, and
a tenant whose process had its turn of `turn_seconds` begins nothing new until those who wait have had theirs.

`_Places` is pure bookkeeping, called in the event loop and never awaiting. `WorkerPool` runs a request in its place: each in
a task of its own, so that a write whose client is gone goes on to its end, while a search is ended. Searches that a dying
process interrupted are done once more; writes are not, since theirs may have been done.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from meshhost.clock import Clock, SystemClock
from meshhost.errors import LimitExceededError, RequestTimeoutError, RoomError
from meshhost.identity.tenant import TenantId
from meshhost.tables.limits import TableLimits
from meshhost.tables.process import WorkerGoneError, WorkerProcess
from meshhost.tasks import TaskOwner

__all__ = ["WorkerPool"]

_LOOK_SECONDS = 5.0
StartProcess = Callable[[TenantId, TaskOwner], WorkerProcess]


@dataclass(slots=True)
class _Active:
    """A tenant's process, since when it has it, how many requests run in it, and when the last one ended."""

    process: WorkerProcess
    since: float
    used_at: float
    in_progress: int = 0


@dataclass(slots=True)
class _Places:
    """Who runs and who waits. `start` makes a process; `now` is the monotonic time."""

    limits: TableLimits
    start: Callable[[TenantId], WorkerProcess]
    now: Callable[[], float]
    active: dict[TenantId, _Active] = field(default_factory=dict)
    waiting: OrderedDict[TenantId, deque["asyncio.Future[_Active]"]] = field(default_factory=OrderedDict)

    def ask(self, tenant: TenantId) -> "asyncio.Future[_Active]":
        """Return a future of a place for a request. Raises LimitExceededError when too many wait."""
        queue = self.waiting.setdefault(tenant, deque())
        if len(queue) >= self.limits.waiting:
            text = f"{len(queue)} requests of the tenant wait for its tables: wait for some, then ask again"
            raise LimitExceededError(text)
        place: asyncio.Future[_Active] = asyncio.get_running_loop().create_future()
        queue.append(place)
        self.settle()
        return place

    def give_back(self, tenant: TenantId, place: "asyncio.Future[_Active]") -> None:
        """End a request, whether it had its place or still waits for it."""
        if place.done() and not place.cancelled():
            active = place.result()
            active.in_progress -= 1
            active.used_at = self.now()
        elif place in (queue := self.waiting.get(tenant, deque())):
            queue.remove(place)
        self.settle()

    def settle(self) -> None:
        """Give places to those that wait, as far as there are any."""
        for tenant, active in list(self.active.items()):
            if active.process.is_gone:
                del self.active[tenant]
        for tenant in [tenant for tenant, queue in self.waiting.items() if not queue]:
            del self.waiting[tenant]
        for tenant in list(self.waiting):
            if tenant not in self.active and self._make_room():
                now = self.now()
                self.active[tenant] = _Active(self.start(tenant), now, now)
        for tenant, queue in list(self.waiting.items()):
            own = self.active.get(tenant)
            while own is not None and queue and self._may_begin(own):
                place = queue.popleft()
                if not place.done():
                    own.in_progress += 1
                    place.set_result(own)

    def end_idle(self) -> None:
        """End the processes that have had nothing to do for long."""
        for active in self.active.values():
            if active.in_progress == 0 and self.now() - active.used_at >= self.limits.idle_seconds:
                active.process.kill()
        self.settle()

    def _others_wait(self) -> bool:
        return any(queue and tenant not in self.active for tenant, queue in self.waiting.items())

    def _had_its_turn(self, active: _Active) -> bool:
        return self.now() - active.since >= self.limits.turn_seconds

    def _may_begin(self, active: _Active) -> bool:
        if active.process.is_gone or active.in_progress >= self.limits.concurrent:
            return False
        return not (self._had_its_turn(active) and self._others_wait())

    def _make_room(self) -> bool:
        """Whether there is room for one process more; ends one that may be ended."""
        if len(self.active) < self.limits.processes:
            return True
        free = [
            (active.used_at, tenant)
            for tenant, active in self.active.items()
            if active.in_progress == 0 and (not self.waiting.get(tenant) or self._had_its_turn(active))
        ]
        if not free:
            return False
        tenant = min(free)[1]
        self.active.pop(tenant).process.kill()
        if tenant in self.waiting:
            self.waiting.move_to_end(tenant)
        return True


class WorkerPool:
    """Runs requests in the processes of their tenants. Use it as a context manager."""

    def __init__(self, start: StartProcess, limits: TableLimits, *, clock: Clock | None = None) -> None:
        self._limits = limits
        self._clock = clock or SystemClock()
        self._tasks = TaskOwner("tables")
        self._places = _Places(limits, lambda tenant: start(tenant, self._tasks), self._clock.monotonic)

    async def __aenter__(self) -> Self:
        self._tasks.spawn(self._end_idle(), name="idle processes")
        return self

    async def __aexit__(self, *_: object) -> None:
        for active in self._places.active.values():
            active.process.kill()
        await self._tasks.stop()

    @property
    def processes(self) -> Mapping[TenantId, int | None]:
        """The process of each tenant that has one."""
        return {tenant: active.process.pid for tenant, active in self._places.active.items()}

    async def run(
        self, tenant: TenantId, op: str, body: Mapping[str, Any], data: bytes = b"", *, seconds: float, is_read: bool
    ) -> tuple[dict[str, Any], bytes]:
        """Do a request and return its answer.

        Raises RefusedError, LimitExceededError, RequestTimeoutError, RoomError. Cancelled, a read ends, and so does a write
        that has not begun; another one goes on.
        """
        begun = asyncio.Event()
        work = self._tasks.spawn(
            _as_result(self._run(tenant, op, body, data, seconds=seconds, is_read=is_read, begun=begun)), name=op
        )
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            if is_read or not begun.is_set():
                work.cancel()
            raise
        if work.cancelled():
            raise RoomError("the room server is stopping")
        result: tuple[dict[str, Any], bytes] | Exception = work.result()
        if isinstance(result, Exception):
            raise result
        return result

    def end_process(self, tenant: TenantId) -> None:
        """End the process of a tenant that has one; what is in progress there fails."""
        active = self._places.active.get(tenant)
        if active is not None:
            active.process.kill()
            self._places.settle()

    async def _run(
        self,
        tenant: TenantId,
        op: str,
        body: Mapping[str, Any],
        data: bytes,
        *,
        seconds: float,
        is_read: bool,
        begun: asyncio.Event,
    ) -> tuple[dict[str, Any], bytes]:
        tries = 2 if is_read else 1
        while True:
            tries -= 1
            try:
                async with self._place(tenant) as active:
                    begun.set()
                    return await active.process.call(op, body, data, seconds=seconds, is_read=is_read)
            except TimeoutError:
                text = f"it took over {seconds:g} s and was ended: ask for less at once, or create an index"
                raise RequestTimeoutError(
                    text if is_read else f"{text}. It may have been done, never in part"
                ) from None
            except WorkerGoneError as gone:
                if gone.out_of_memory:
                    text = f"it took over {self._limits.memory_mb} MB of memory and was ended: ask for less at once"
                    raise LimitExceededError(text) from None
                if not tries:
                    text = "the process for tables ended: look whether it was done, then try again"
                    raise RequestTimeoutError(text) from None

    @asynccontextmanager
    async def _place(self, tenant: TenantId) -> AsyncIterator[_Active]:
        place = self._places.ask(tenant)
        try:
            try:
                async with asyncio.timeout(self._limits.wait_seconds):
                    active = await asyncio.shield(place)
            except TimeoutError:
                text = f"the tables are busy: waited {self._limits.wait_seconds:g} s; try again later"
                raise LimitExceededError(text) from None
            yield active
        finally:
            self._places.give_back(tenant, place)

    async def _end_idle(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            self._places.end_idle()


async def _as_result(work: Any) -> Any:
    """The result or the error: an error that is nobody's any more must not stop the owner of the task."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - raised again by who waits for it
        return error
