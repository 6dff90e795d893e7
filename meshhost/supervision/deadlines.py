"""`asyncio.timeout` on an injected clock.

Supervision and the start queue bound their waits with `deadline`, so that tests can move the clock instead of sleeping. On
the system clock it is `asyncio.timeout` itself; on any other clock one task waits on that clock and expires the timeout.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshhost.clock import Clock, SystemClock
from meshhost.tasks import TaskOwner

__all__ = ["deadline"]


@asynccontextmanager
async def deadline(clock: Clock, seconds: float, *, late: str = "the deadline passed") -> AsyncIterator[None]:
    """Cancel the block after `seconds` and raise TimeoutError with the text `late`."""
    tasks = TaskOwner("deadline")
    # On the system clock the loop's own timer suffices, without a task for each start.
    is_real = isinstance(clock, SystemClock)
    scope = asyncio.timeout(seconds if is_real else None)
    try:
        async with scope:
            if not is_real:
                tasks.spawn(_expire(scope, clock, seconds), name=f"{seconds:g} s")
            yield
    except TimeoutError:
        if scope.expired():
            raise TimeoutError(late) from None
        raise
    finally:
        await tasks.stop()


async def _expire(scope: asyncio.Timeout, clock: Clock, seconds: float) -> None:
    await clock.sleep(seconds)
    scope.reschedule(asyncio.get_running_loop().time())
