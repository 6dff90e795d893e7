"""Time as an argument, so that code that waits can be tested without waiting.

Whatever measures, stores or waits for time takes a `Clock`; programs pass SystemClock, tests
`meshhost.testing.clock.FakeClock`. A leaf: it imports nothing of ours.
"""

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SteadyTime", "SystemClock"]


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


# A smaller difference is drift, which does no harm.
_JUMP_SECONDS = 1.0


class SteadyTime:
    """The wall clock of a clock, except that it does not jump when somebody sets that.

    For times that are stored and waited for, such as the end of a lease. It carries on by the monotonic clock. Its owner asks
    for the `jump` from time to time, moves the stored times by as much, and then calls `follow`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.time() - clock.monotonic()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC by the wall clock as it was before it jumped."""
        return self._clock.monotonic() + self._offset

    def jump(self) -> float:
        """By how many seconds the wall clock was set forward since the last `follow`; negative when back, 0.0 when not."""
        difference = self._clock.time() - self.time()
        return difference if abs(difference) >= _JUMP_SECONDS else 0.0

    def as_wall(self, time: float) -> float:
        """A steady time as the wall clock will show it."""
        return time + self.jump()

    def follow(self, jump: float) -> None:
        """Take over the wall clock after a jump."""
        self._offset += jump
