"""Asks the queue store whether it works, at most every few seconds.

`QueueService.check` is the caller, for the room server's readiness. Probes may come from anywhere and in any number, and the
question costs a write, so the last answer is given again for a while.
"""

import asyncio

from meshhost.clock import Clock
from meshhost.errors import RoomError
from meshhost.stores.queues import QueueStore

__all__ = ["StoreCheck"]

_CHECK_SECONDS = 2.0


class StoreCheck:
    """Whether `store` works; call it."""

    def __init__(self, store: QueueStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asking = asyncio.Lock()
        self._error: OSError | RoomError | None = None
        self._ask_again_at = 0.0

    async def __call__(self) -> None:
        """Return when the store works. Raises what it raised, now or a moment ago."""
        async with self._asking:
            if self._clock.monotonic() < self._ask_again_at:
                if self._error is not None:
                    raise self._error
                return
            self._error = None
            try:
                await self._store.check()
            except (OSError, RoomError) as error:
                self._error = error.with_traceback(None)
                raise
            finally:
                self._ask_again_at = self._clock.monotonic() + _CHECK_SECONDS
