"""The queue of starts: a limited number at once, and the tenants take turns by their weights.

Starting an agent is the expensive part of its life (it connects, authenticates, runs a constructor), so a burst of calls must
neither overload the host nor let one tenant keep the others out. `Tenancy` enters a `Ticket` for each start and wraps the
child in a `QueuedChild`, whose `start` waits for the ticket in the agent's own task. The queue itself has no task: each
`enter` and each `leave` grants what may start now.

Invariant: each ticket is left exactly once in effect (`leave` is idempotent), whatever happened to the start; a ticket that is
never left would use up a place for good.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine
from typing import Any

from meshhost.clock import Clock
from meshhost.errors import SettingsError
from meshhost.supervision.deadlines import deadline
from meshhost.supervision.isolation import Aborted, Child, Exit, Exited

__all__ = ["MAX_WAIT_SECONDS", "QueuedChild", "StartQueue", "Ticket"]

MAX_WAIT_SECONDS = 3600.0
"""A start that has waited this long counts as a crash: it is tried again, from the end of the queue."""


class Ticket:
    """A place in the queue, then a start in progress. Its owner must call `leave` in the end.

    A parked ticket waits beside the queue until `unpark`.
    """

    __slots__ = ("_future", "_queue", "entered_at", "granted_at", "has_left", "is_parked", "tenant")

    def __init__(self, queue: "StartQueue", tenant: str, now: float, *, is_parked: bool = False) -> None:
        self.tenant = tenant
        self.entered_at = now
        self.granted_at: float | None = None
        self.has_left = False
        self.is_parked = is_parked
        self._queue = queue
        self._future: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        waiting = "parked" if self.is_parked else "waiting"
        state = "left" if self.has_left else waiting if self.granted_at is None else "granted"
        return f"<Ticket {self.tenant!r} {state}>"

    @property
    def is_waiting(self) -> bool:
        """Whether its turn has not come yet."""
        return self.granted_at is None and not self.has_left

    async def wait(self) -> bool:
        """Wait for the turn. True when it may start, False when `leave` came first. Cancelling does not give up the place."""
        if self.is_waiting:
            if self._future is None:
                self._future = asyncio.get_running_loop().create_future()
            # wait(), not await: a cancelled waiter must not cancel the future of the others.
            await asyncio.wait({self._future})
        return not self.has_left

    def unpark(self) -> None:
        """Take the last place in the queue. No effect when it is not parked or has left."""
        if self.is_parked and not self.has_left:
            self.is_parked = False
            self._queue.line_up(self)

    def leave(self) -> None:
        """Give up the place, or report that the start is over. Idempotent."""
        if not self.has_left:
            was_granted = self.granted_at is not None
            self.has_left = True
            self.wake()
            self._queue.left(self, was_granted)

    def wake(self) -> None:
        """Release the waiters."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class StartQueue:
    """Lets at most `limit` start at once, and of one tenant at most `tenant_limit` (default: three quarters of them).

    Tenants take turns; in one turn a tenant of weight n starts at most n agents. So the wait of a tenant depends on the
    weights of the others, not on how many of their agents wait, and a tenant whose starts hang leaves room for others.
    `on_grant` is called with the seconds that a start has waited.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        limit: int = 32,
        tenant_limit: int | None = None,
        weight: Callable[[str], int] = lambda _: 1,
        on_grant: Callable[[float], None] = lambda _: None,
    ) -> None:
        if limit < 1 or (tenant_limit is not None and tenant_limit < 1):
            raise SettingsError("at least one agent must be able to start at a time")
        self._clock = clock
        self._limit = limit
        self._tenant_limit = tenant_limit if tenant_limit is not None else max(1, limit * 3 // 4)
        self._weight = weight
        self._on_grant = on_grant
        # Only tenants that wait. The first one has its turn, with `_turn_left` starts left (0: the turn has not begun).
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._waiting_count: Counter[str] = Counter()
        self._starting: Counter[str] = Counter()
        self._turn_left = 0

    def __repr__(self) -> str:
        return f"<StartQueue starting={self.starting} waiting={self.waiting()}>"

    @property
    def starting(self) -> int:
        """How many starts are in progress."""
        return self._starting.total()

    def waiting(self, tenant: str | None = None) -> int:
        """How many agents of the tenant, or of all tenants, wait for their start."""
        return self._waiting_count.total() if tenant is None else self._waiting_count[tenant]

    def enter(self, tenant: str, *, is_parked: bool = False) -> Ticket:
        """Queue a start. Unless `is_parked`, its turn may have come when this returns."""
        ticket = Ticket(self, tenant, self._clock.monotonic(), is_parked=is_parked)
        self._waiting_count[tenant] += 1
        if not is_parked:
            self.line_up(ticket)
        return ticket

    def line_up(self, ticket: Ticket) -> None:
        """Put a ticket in the queue. Called by the ticket."""
        self._waiting.setdefault(ticket.tenant, deque()).append(ticket)
        self._grant()

    def left(self, ticket: Ticket, was_granted: bool) -> None:
        """A ticket was left. Called by the ticket."""
        counter = self._starting if was_granted else self._waiting_count
        _decrement(counter, ticket.tenant)
        if not (was_granted or ticket.is_parked) and (others := self._waiting.get(ticket.tenant)) is not None:
            others.remove(ticket)
            if not others:
                self._end_turn(ticket.tenant)
        self._grant()

    def _grant(self) -> None:
        while self.starting < self._limit and (tenant := self._next_tenant()) is not None:
            ticket = self._waiting[tenant].popleft()
            _decrement(self._waiting_count, tenant)
            self._starting[tenant] += 1
            now = ticket.granted_at = self._clock.monotonic()
            self._on_grant(now - ticket.entered_at)
            ticket.wake()
            self._turn_left -= 1
            if not self._waiting[tenant] or self._turn_left <= 0:
                self._end_turn(tenant)

    def _next_tenant(self) -> str | None:
        """The tenant whose turn it is. Tenants at their limit lose their turn."""
        for _ in range(len(self._waiting)):
            tenant = next(iter(self._waiting))
            if self._starting[tenant] < self._tenant_limit:
                if self._turn_left <= 0:
                    self._turn_left = max(1, self._weight(tenant))
                return tenant
            self._end_turn(tenant)
        return None

    def _end_turn(self, tenant: str) -> None:
        if next(iter(self._waiting)) == tenant:
            self._turn_left = 0
        if self._waiting[tenant]:
            self._waiting.move_to_end(tenant)
        else:
            del self._waiting[tenant]


def _decrement(counter: Counter[str], tenant: str) -> None:
    counter[tenant] -= 1
    if not counter[tenant]:
        del counter[tenant]


class QueuedChild:
    """A child whose start waits for its ticket. `start_timeout` seconds begin when its turn has come.

    A start that need not wait sets no timer for its turn: asyncio keeps a cancelled timer, and what it refers to, until it
    would have fired, here for up to an hour.
    """

    __slots__ = ("_child", "_clock", "_is_aborted", "_start_timeout", "_ticket", "_was_begun")

    def __init__(self, child: Child, ticket: Ticket, *, start_timeout: float, clock: Clock) -> None:
        self._child = child
        self._ticket = ticket
        self._start_timeout = start_timeout
        self._clock = clock
        self._was_begun = False
        self._is_aborted = False

    async def start(self) -> None:
        """Wait for the turn and start the child; return when it runs, or when it was told to leave before its turn.

        Raises the child's crash, or TimeoutError when it did not report running in time or got no turn within
        MAX_WAIT_SECONDS.
        """
        try:
            if await self._has_turn():
                self._was_begun = True
                seconds = self._start_timeout
                late = f"the agent did not report running within {seconds:g} s"
                async with deadline(self._clock, seconds, late=late):
                    await self._child.start()
        finally:
            self._ticket.leave()

    async def _has_turn(self) -> bool:
        if self._ticket.is_waiting:
            late = f"its turn to start did not come within {MAX_WAIT_SECONDS:g} s"
            async with deadline(self._clock, MAX_WAIT_SECONDS, late=late):
                await self._ticket.wait()
        # Checked last: it may have been told to leave while the deadline ended.
        return not self._ticket.has_left

    def wait(self) -> Coroutine[Any, Any, Exit]:
        """Wait for its end and return how it ended."""
        # The child's own coroutine where possible: each idle agent keeps the frames of this wait.
        return self._child.wait() if self._was_begun else self._wait_from_queue()

    async def _wait_from_queue(self) -> Exit:
        if not await self._ticket.wait() and not self._was_begun:
            return Aborted() if self._is_aborted else Exited()
        return await self._child.wait()

    async def drain(self) -> None:
        """Leave the queue, or ask the child to finish; return when it has ended."""
        if self._was_begun:
            await self._child.drain()
        else:
            self._ticket.leave()

    def activity(self) -> str | None:
        """What the child does, if its turn has come."""
        return self._child.activity() if self._was_begun else None

    def abort(self) -> None:
        """Leave the queue, or abort the child."""
        self._is_aborted = True
        if self._was_begun:
            self._child.abort()
        else:
            self._ticket.leave()
