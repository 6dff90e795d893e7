"""The receivers of this process that wait for a message, per queue and in the order in which they came.

A receiver that finds a queue empty is put in line; a *hint* that a message became ready wakes the one that has waited
longest and has no hint yet, and it looks into the store. A hint is never a message: it may find nothing. But it must not be
lost between receivers, or a message would lie there while others wait: one that leaves with a hint it has not followed
gives it to the next. `QueueService` is the caller, all in one event loop; hints that no receiver here took go to other
processes through the notifier (`meshhost.stores.notifier`).
"""

import asyncio
from collections.abc import Iterator

from meshhost.clock import Clock
from meshhost.errors import LimitExceededError, RoomError
from meshhost.stores.notifier import Hint
from meshhost.stores.queues import HolderId, QueueKey

__all__ = ["Waiter", "Waiters", "wait_at_most"]


class Waiter:
    """One receiver that waits: made by `Waiters.add`, given back to `Waiters.remove`."""

    def __init__(self, queue: QueueKey, holder: HolderId) -> None:
        self.queue = queue
        self.holder = holder
        self._event = asyncio.Event()
        self._woken = False
        self._many = False
        self._ended = False
        self._error: RoomError | None = None

    def __repr__(self) -> str:
        return f"<Waiter {self.queue} woken={self._woken} ended={self._ended}>"

    @property
    def woken(self) -> bool:
        """Whether there is a hint that was not taken yet."""
        return self._woken

    @property
    def many(self) -> bool:
        """Whether that hint stands for an unknown number of messages."""
        return self._many

    def over(self) -> bool:
        """Return whether the wait was ended."""
        return self._ended

    def check(self) -> None:
        """Raise the error that the wait was ended with, if any."""
        if self._error is not None:
            raise self._error

    def take(self) -> bool:
        """Take the hint, if any, before looking into the store. Returns whether it stood for many messages."""
        many, self._woken, self._many = self._many, False, False
        if not self._ended:
            self._event.clear()
        return many

    async def wait(self, seconds: float, clock: Clock) -> None:
        """Return when woken, ended, or after `seconds`."""
        await wait_at_most(self._event, seconds, clock)

    def wake(self, *, many: bool) -> None:
        """Give it the hint."""
        self._woken, self._many = True, many or self._many
        self._event.set()

    def end(self, error: RoomError | None = None) -> None:
        """End the wait, with or without an error."""
        self._ended, self._error = True, error
        self._event.set()


class Waiters:
    """The waiting receivers of all queues. `max_waiters` bounds those of one queue."""

    def __init__(self, *, max_waiters: int = 10_000) -> None:
        self._max_waiters = max_waiters
        self._queues: dict[QueueKey, dict[Waiter, None]] = {}

    def add(self, queue: QueueKey, holder: HolderId) -> Waiter:
        """Put a receiver at the end of the line. Raises LimitExceededError."""
        waiters = self._queues.get(queue, {})
        if len(waiters) >= self._max_waiters:
            raise LimitExceededError(
                f"queue {queue.name!r} has {self._max_waiters} receivers waiting, which is the limit"
            )
        waiter = Waiter(queue, holder)
        self._queues.setdefault(queue, waiters)[waiter] = None
        return waiter

    def remove(self, waiter: Waiter) -> Hint | None:
        """Take a receiver out of the line. A hint it did not take goes to the next; without a next one it is returned."""
        waiters = self._queues.get(waiter.queue, {})
        was_there = waiters.pop(waiter, waiter) is None
        if not waiters:
            self._queues.pop(waiter.queue, None)
        if not (was_there and waiter.woken):
            return None
        hint = Hint(waiter.queue, waiter.many)
        return None if self.wake(hint) else hint

    def wake(self, hint: Hint) -> bool:
        """Give the hint to the receiver that has waited longest and has none yet. Returns whether there was one.

        A receiver that takes a hint for many messages, and finds one, must pass the hint on.
        """
        for waiter in self._queues.get(hint.queue, ()):
            if not (waiter.woken or waiter.over()):
                waiter.wake(many=hint.many)
                return True
        return False

    def end_queue(self, queue: QueueKey, error: RoomError) -> None:
        """End all waits for this queue with an error."""
        for waiter in self._queues.pop(queue, ()):
            waiter.end(error)

    def end_holder(self, holder: HolderId) -> None:
        """End all waits of this holder."""
        for waiter in self._all():
            if waiter.holder == holder:
                waiter.end()

    def end_all(self) -> None:
        """End all waits."""
        for waiter in self._all():
            waiter.end()

    def waiting(self, queue: QueueKey) -> int:
        """Return how many receivers wait for this queue."""
        return len(self._queues.get(queue, ()))

    def _all(self) -> Iterator[Waiter]:
        return (waiter for waiters in self._queues.values() for waiter in waiters)


async def wait_at_most(event: asyncio.Event, seconds: float, clock: Clock) -> None:
    """Return when the event is set, or after `seconds` of the clock; in both cases the event is set afterwards."""
    async with asyncio.TaskGroup() as group:
        timer = group.create_task(clock.sleep(seconds))
        timer.add_done_callback(lambda _: event.set())
        await event.wait()
        timer.cancel()
