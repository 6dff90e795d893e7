"""A clock for tests: time passes only when the test moves it.

Give a `FakeClock` to what takes a `meshhost.clock.Clock`. Code that sleeps on it waits for nothing real: `advance` wakes the
sleepers that are due, in order, and lets each of them run at its own time.
"""

import asyncio
import heapq
import itertools

__all__ = ["FakeClock"]

# Turns of the event loop after each wake-up: enough for a sleeper to act, and for what waits for it to react.
_TURNS = 10


class FakeClock:
    """Keeps the contract of `meshhost.clock.Clock`; `time()` and `monotonic()` are the same number until `step`."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._stepped = 0.0
        self._order = itertools.count()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def sleepers(self) -> int:
        """How many calls of `sleep` have not returned."""
        return sum(not future.done() for _, _, future in self._sleeping)

    def monotonic(self) -> float:
        """Seconds."""
        return self._now

    def time(self) -> float:
        """Seconds."""
        return self._now + self._stepped

    def skip(self, seconds: float) -> None:
        """Move on by `seconds` without waking anybody: for code that only asks what time it is."""
        self._now += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back; as on a machine, only `time()` shows it and no sleeper wakes."""
        self._stepped += seconds

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock that far; at once (after a turn of the loop) for zero or less."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self._now + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, and wake sleepers in the order of their times; each runs while the clock shows its time.

        Sleeps that begin meanwhile and are due before the end are woken too.
        """
        end = self._now + seconds
        await self._settle()
        while self._sleeping and self._sleeping[0][0] <= end:
            due, _, future = heapq.heappop(self._sleeping)
            if not future.done():
                self._now = max(self._now, due)
                future.set_result(None)
                await self._settle()
        self._now = end
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
