"""Who waits for a message of which queue, in the order in which they came.

A wake is a hint to look into the store, never a message. It is never lost between waiters: when one leaves with a hint it has
not followed, the next gets it. A hint that finds all waiters woken may be dropped, since each of them will look once more.
"""

import asyncio
from collections.abc import Iterator

from meshhost.clock import Clock
from meshhost.errors import LimitExceededError, RoomError
from meshhost.stores.queues import HolderId, QueueKey

__all__ = ["QueueNotifier", "QueueWaiter", "wait_at_most"]


class QueueWaiter:
    """One who waits: made by `QueueNotifier.add`, given back to `QueueNotifier.remove`."""

    def __init__(self, queue: QueueKey, holder: HolderId) -> None:
        self.queue = queue
        self.holder = holder
        self._event = asyncio.Event()
        self._woken = False
        self._many = False
        self._ended = False
        self._error: RoomError | None = None

    def __repr__(self) -> str:
        return f"<QueueWaiter {self.queue} woken={self._woken} ended={self._ended}>"

    @property
    def woken(self) -> bool:
        """Whether there is a hint that was not taken yet."""
        return self._woken

    @property
    def many(self) -> bool:
        """Whether that hint stands for an unknown number of messages."""
        return self._many

    def over(self) -> bool:
        """Whether the wait was ended."""
        return self._ended

    def check(self) -> None:
        """Raise the error the wait was ended with, if any."""
        if self._error is not None:
            raise self._error

    def take(self) -> bool:
        """Take the hint, if any: before looking into the store. Returns whether it stood for many."""
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
        """End the wait, with an error or without."""
        self._ended, self._error = True, error
        self._event.set()


class QueueNotifier:
    """The waiters of all queues. `max_waiters` bounds those of one queue."""

    def __init__(self, *, max_waiters: int = 10_000) -> None:
        self._max_waiters = max_waiters
        self._queues: dict[QueueKey, dict[QueueWaiter, None]] = {}

    def add(self, queue: QueueKey, holder: HolderId) -> QueueWaiter:
        """Put a waiter at the end of the line. Raises LimitExceededError."""
        waiters = self._queues.get(queue, {})
        if len(waiters) >= self._max_waiters:
            raise LimitExceededError(
                f"queue {queue.name!r} has {self._max_waiters} receivers waiting, which is the limit"
            )
        waiter = QueueWaiter(queue, holder)
        self._queues.setdefault(queue, waiters)[waiter] = None
        return waiter

    def remove(self, waiter: QueueWaiter) -> None:
        """Take a waiter out of the line; a hint it did not take goes to the next."""
        waiters = self._queues.get(waiter.queue, {})
        waiters.pop(waiter, None)
        if not waiters:
            self._queues.pop(waiter.queue, None)
        elif waiter.woken:
            self.wake(waiter.queue, many=waiter.many)

    def wake(self, queue: QueueKey, *, many: bool = False) -> None:
        """A message became ready, or an unknown number: hint to the one that waits longest and has no hint yet.

        Whoever takes a hint for many and finds a message passes it on by calling this again.
        """
        for waiter in self._queues.get(queue, ()):
            if not (waiter.woken or waiter.over()):
                waiter.wake(many=many)
                return

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
        """How many wait for this queue."""
        return len(self._queues.get(queue, ()))

    def _all(self) -> Iterator[QueueWaiter]:
        return (waiter for waiters in self._queues.values() for waiter in waiters)


async def wait_at_most(event: asyncio.Event, seconds: float, clock: Clock) -> None:
    """Return when the event is set, or after `seconds` of the clock; the event is set afterwards in any case."""
    async with asyncio.TaskGroup() as group:
        timer = group.create_task(clock.sleep(seconds))
        timer.add_done_callback(lambda _: event.set())
        await event.wait()
        timer.cancel()
