"""Those who wait to learn what becomes of a message, in this process.

`QueueReader.wait` puts a watch here, and `QueueService` tells which message something happened to. What this process does wakes
a watch at once. What other processes do, and what time alone does, is found by looking into the store: each watch does so about
once a second, more rarely when there are many, so that all together never ask the store for more than a few hundred messages in
a second. A watch is a hint to look, never the answer: what is told is read from the store.

Invariant: a watch that is over, was ended or was cancelled is not in the table any more.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from meshhost.clock import Clock
from meshhost.errors import LimitExceededError
from meshhost.queues.waiters import wait_at_most
from meshhost.stores.queues import QueueKey

__all__ = ["Watch", "Watches"]

_LOOK_SECONDS = 1.0
# Looks into the store per second, over all watches.
_MOST_LOOKS = 200


class Watch:
    """One that waits; made by `Watches.watching`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.is_over = False

    def wake(self) -> None:
        """Have it look again."""
        self._event.set()

    def end(self) -> None:
        """End the wait."""
        self.is_over = True
        self._event.set()

    async def wait(self, seconds: float, clock: Clock) -> None:
        """Return when woken, or ended, or after `seconds`. To be woken again, call `begin` before looking."""
        await wait_at_most(self._event, seconds, clock)

    def begin(self) -> None:
        """What is told from now on wakes the next `wait`; call it just before a look."""
        if not self.is_over:
            self._event.clear()


class Watches:
    """The watches of this process. `most` bounds them."""

    def __init__(self, *, most: int = 10_000) -> None:
        self._most = most
        self._count = 0
        self._queues: dict[QueueKey, dict[int, dict[Watch, None]]] = {}

    @contextmanager
    def watching(self, queue: QueueKey, message_id: int) -> Iterator[Watch]:
        """Watch a message for the time of the block. Raises LimitExceededError."""
        if self._count >= self._most:
            raise LimitExceededError(f"{self._most} requests wait for the end of a message, which is the limit")
        watch = Watch()
        messages = self._queues.setdefault(queue, {})
        messages.setdefault(message_id, {})[watch] = None
        self._count += 1
        try:
            yield watch
        finally:
            self._remove(queue, message_id, watch)

    @property
    def pause(self) -> float:
        """Seconds between two looks of one watch."""
        return max(_LOOK_SECONDS, self._count / _MOST_LOOKS)

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def tell(self, queue: QueueKey, message_id: int | None = None) -> None:
        """Something happened to this message of the queue, or to any of them (None)."""
        messages = self._queues.get(queue, {})
        told = messages.values() if message_id is None else [messages.get(message_id, {})]
        for watches in told:
            for watch in watches:
                watch.wake()

    def end_all(self) -> None:
        """End all waits."""
        for messages in self._queues.values():
            for watches in messages.values():
                for watch in watches:
                    watch.end()

    def _remove(self, queue: QueueKey, message_id: int, watch: Watch) -> None:
        self._count -= 1
        messages = self._queues[queue]
        watches = messages[message_id]
        del watches[watch]
        if not watches:
            del messages[message_id]
        if not messages:
            del self._queues[queue]
