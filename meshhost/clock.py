"""Time as an argument, so that code that waits can be tested without waiting.

Whatever measures, stores or waits for time takes a `Clock`; programs pass SystemClock, tests
`meshhost.testing.clock.FakeClock`. A leaf: it imports nothing of ours.
"""

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Tells and waits for time.

    `monotonic()` measures durations inside one process; `time()` is the wall clock (seconds since the epoch) and is
    what may be stored; `sleep()` waits on the same time line as `monotonic()`.
    """

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed point of this boot."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)
