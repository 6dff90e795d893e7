"""Requests that wait for an agent or a toolkit which is not in the room yet.

The agents of configured services join a while after their room woke, so the first request of a client often comes before them.
Instead of an error it waits here, in the task of the request: until what it asks for is registered, until nobody is on the way
that could register it, until its caller gives up (`agent.abandon`, or the end of its connection, which cancels the task), or
for ARRIVAL_SECONDS. Registrations and departures call `look`; what changes by time alone is noticed within LOOK_SECONDS.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from meshhost.errors import NotFoundError, ToolError
from meshhost.server.core.participants import Participant

__all__ = ["ARRIVAL_SECONDS", "Arrivals"]

ARRIVAL_SECONDS = 30.0
LOOK_SECONDS = 0.5

T = TypeVar("T")


class _Waiting:
    __slots__ = ("caller", "changed", "is_abandoned", "key")

    def __init__(self, caller: Participant, key: str | None) -> None:
        self.caller = caller
        self.key = key
        self.is_abandoned = False
        self.changed = asyncio.Event()


class Arrivals:
    """The requests of one room that wait."""

    def __init__(self) -> None:
        self._waiting: set[_Waiting] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(
        self,
        find: Callable[[], T],
        *,
        is_coming: Callable[[], bool],
        timeout: float,
        caller: Participant,
        key: str | None,
    ) -> T:
        """What `find` returns, asked again and again while it raises NotFoundError and somebody `is_coming`.

        Raises its last NotFoundError, or ToolError when the caller abandoned the request, which it named `key`.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        waiting = _Waiting(caller, key)
        self._waiting.add(waiting)
        try:
            while not waiting.is_abandoned:
                try:
                    return find()
                except NotFoundError:
                    left = deadline - asyncio.get_running_loop().time()
                    if left <= 0 or not is_coming():
                        raise
                waiting.changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, LOOK_SECONDS)):
                        await waiting.changed.wait()
        finally:
            self._waiting.discard(waiting)
        raise ToolError("the caller no longer waits for the answer")

    def look(self) -> None:
        """Something changed: let everybody look again."""
        for waiting in self._waiting:
            waiting.changed.set()

    def abandon(self, caller: Participant, key: str) -> None:
        """End the wait of a request that its caller gave up."""
        for waiting in self._waiting:
            if waiting.caller is caller and waiting.key == key:
                waiting.is_abandoned = True
                waiting.changed.set()
