"""The task that notices what time alone makes ready: retries that come due, leases that expire."""

import asyncio
import logging
import math
from collections.abc import Callable

from meshhost.clock import Clock
from meshhost.queues.retry import RetryPolicy
from meshhost.stores.notifier import wait_at_most
from meshhost.stores.queues import QueueBackend, QueueKey

__all__ = ["QueueSweeper"]

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 5.0
# The timer and the wall clock differ a little: a due time just missed is not met by turning on the spot.
_SHORTEST_SECONDS = 0.001
_BACKOFF = RetryPolicy(first_delay=0.5, max_delay=30.0)


class QueueSweeper:
    """Sweeps the store whenever something is due and reports the queues to `on_ready`."""

    def __init__(self, backend: QueueBackend, on_ready: Callable[[QueueKey], None], *, clock: Clock) -> None:
        self._backend = backend
        self._on_ready = on_ready
        self._clock = clock
        self._next = math.inf  # wall clock
        self._earlier = asyncio.Event()

    def tell(self, due: float) -> None:
        """Something will be due at this time (wall clock), perhaps earlier than was known."""
        if due < self._next:
            self._next = due
            self._earlier.set()

    async def run(self) -> None:
        """Sweep until cancelled. A failing store is logged and tried again, ever more slowly."""
        failures = 0
        while True:
            self._next = math.inf
            try:
                pause = await self._sweep()
            except Exception as error:
                # Whatever ails the store, the messages in it must come due again.
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

    async def _sweep(self) -> float:
        """Return the seconds until there will be something to do."""
        for queue in await self._backend.sweep():
            self._on_ready(queue)
        due = await self._backend.next_due()
        left = _IDLE_SECONDS if due is None else due - self._clock.time()
        return min(max(left, _SHORTEST_SECONDS), _IDLE_SECONDS)

    async def _sleep(self) -> None:
        # Measured on the monotonic clock, so that a wall clock set back costs no more than one idle time.
        end = self._clock.monotonic() + _IDLE_SECONDS
        self._earlier.clear()
        while (left := min(self._next - self._clock.time(), end - self._clock.monotonic())) > 0:
            await wait_at_most(self._earlier, left, self._clock)
            self._earlier.clear()
