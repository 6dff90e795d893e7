"""The task that notices what time alone makes ready: retries that come due and leases that expire.

`QueueService` runs one per process and tells it of each due time that it learns. It sleeps until the earliest of them,
sweeps the store, and reports the queues concerned, whose receivers are then woken. It also looks every few seconds, because
other processes make leases too and may die with them. Over all processes the store reports each message once, so the report
must reach receivers elsewhere as well: that is the service's part. The task may be cancelled at any moment; what it did not
report by then costs waiting receivers one poll.
"""

import asyncio
import logging
import math
from collections.abc import Callable

from meshhost.backoff import Backoff
from meshhost.clock import Clock, SystemClock
from meshhost.queues.waiters import wait_at_most
from meshhost.stores.queues import QueueKey, QueueStore

__all__ = ["QueueSweeper"]

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 5.0
# Timer and wall clock differ a little: after a sweep just before a due time, wait a moment instead of spinning.
_SHORTEST_SECONDS = 0.001
_BACKOFF = Backoff(first_delay=0.5, max_delay=30.0)


class QueueSweeper:
    """Sweeps a store whenever something is due."""

    def __init__(self, store: QueueStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._next = math.inf  # wall clock
        self._earlier = asyncio.Event()

    def tell(self, due: float) -> None:
        """Learn that something will be due at this time (wall clock)."""
        if due < self._next:
            self._next = due
            self._earlier.set()

    async def run(self, on_ready: Callable[[QueueKey], None]) -> None:
        """Sweep until cancelled, and report each queue in which messages became ready. A failing store is tried again."""
        failures = 0
        while True:
            self._next = math.inf
            try:
                pause = await self._sweep(on_ready)
            except Exception as error:
                # Whatever is wrong with the store, its messages must come due once it works again.
                failures += 1
                pause = _BACKOFF.longest(failures)
                logger.warning(
                    "sweeping the queues failed", extra={"failures": failures, "pause": pause}, exc_info=error
                )
                await self._clock.sleep(pause)
            else:
                failures = 0
                self._next = min(self._next, self._clock.time() + pause)
                await self._sleep()

    async def _sweep(self, on_ready: Callable[[QueueKey], None]) -> float:
        """Sweep once and return the seconds until there will be something to do."""
        for queue in await self._store.sweep():
            on_ready(queue)
        due = await self._store.next_due()
        left = _IDLE_SECONDS if due is None else due - self._clock.time()
        return min(max(left, _SHORTEST_SECONDS), _IDLE_SECONDS)

    async def _sleep(self) -> None:
        # Bounded on the monotonic clock: a wall clock that is set back delays a sweep by one idle time at most.
        end = self._clock.monotonic() + _IDLE_SECONDS
        self._earlier.clear()
        while (left := min(self._next - self._clock.time(), end - self._clock.monotonic())) > 0:
            await wait_at_most(self._earlier, left, self._clock)
            self._earlier.clear()
