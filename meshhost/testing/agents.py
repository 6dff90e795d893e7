"""Agents for tests, each named by how it behaves.

They are classes: bind one, or a subclass of your own, to a path of a host. The host constructs the agents, so each is appended
to the `made` of its class, where the test finds it. A subclass has a `made` of its own: define one per test.
"""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from meshhost.room.call import CallContext
    from meshhost.room.client import RoomClient

__all__ = ["CrashingAgent", "NeverStartingAgent", "QuietAgent", "SlowAgent", "StubbornAgent"]


class QuietAgent:
    """Joins the room and does nothing. Records its `call`, its `room`, and how often it started and stopped."""

    made: ClassVar[list[Any]] = []
    _awaited: ClassVar[list[tuple[int, asyncio.Future[Any]]]] = []

    def __init_subclass__(cls) -> None:
        cls.made = []
        cls._awaited = []

    def __init__(self, call: "CallContext | None" = None) -> None:
        self.call = call
        self.room: RoomClient | None = None
        self.starts = 0
        self.stops = 0
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        self.made.append(self)
        for number, future in self._awaited:
            if number == len(self.made) and not future.done():
                future.set_result(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} starts={self.starts} stops={self.stops}>"

    @classmethod
    async def wait_made(cls, number: int = 1, *, timeout: float = 10.0) -> Self:
        """Wait for the agent that is the `number`th of this class, from 1 on. Raises TimeoutError after `timeout` seconds."""
        if number <= len(cls.made):
            agent: Self = cls.made[number - 1]
            return agent
        future: asyncio.Future[Self] = asyncio.get_running_loop().create_future()
        cls._awaited.append((number, future))
        async with asyncio.timeout(timeout):
            return await future

    async def start(self, *, room: "RoomClient") -> None:
        """Record the room and the start."""
        self.room = room
        self.starts += 1
        self.started.set()

    async def stop(self) -> None:
        """Record the stop."""
        self.stops += 1
        self.stopped.set()


class SlowAgent(QuietAgent):
    """Its `start` returns once `release` is set; `starting` is set when it was called."""

    def __init__(self, call: "CallContext | None" = None) -> None:
        super().__init__(call)
        self.starting = asyncio.Event()
        self.release = asyncio.Event()

    async def start(self, *, room: "RoomClient") -> None:
        """Wait for `release`, then start."""
        self.starting.set()
        await self.release.wait()
        await super().start(room=room)


class NeverStartingAgent(QuietAgent):
    """Its `start` never returns; it can be cancelled."""

    async def start(self, *, room: "RoomClient") -> None:
        """Wait forever."""
        self.room = room
        self.starts += 1
        self.started.set()
        await asyncio.Event().wait()


class CrashingAgent(QuietAgent):
    """Raises `error`: in `start`, or, with `crashes_in_start = False`, while it runs, once `crash` was called.

    Both are class attributes. Only the first `crashes` agents of a class crash by themselves (None: all).
    """

    error: ClassVar[Exception] = RuntimeError("the agent crashed")
    crashes_in_start: ClassVar[bool] = True
    crashes: ClassVar[int | None] = None

    def __init__(self, call: "CallContext | None" = None) -> None:
        super().__init__(call)
        self._crash = asyncio.Event()
        self._is_doomed = self.crashes is None or len(self.made) <= self.crashes

    def crash(self) -> None:
        """Crash now with the error."""
        self._is_doomed = True
        self._crash.set()

    async def start(self, *, room: "RoomClient") -> None:
        """Start, or crash."""
        await super().start(room=room)
        if self.crashes_in_start and self._is_doomed:
            raise self.error

    async def wait_ended(self) -> None:
        """Raises the error once `crash` was called."""
        await self._crash.wait()
        raise self.error


class StubbornAgent(QuietAgent):
    """Its `stop` ignores cancellation until `release` is set; `stopping` is set when it was called."""

    def __init__(self, call: "CallContext | None" = None) -> None:
        super().__init__(call)
        self.stopping = asyncio.Event()
        self.release = asyncio.Event()

    async def stop(self) -> None:
        """Wait for `release`, ignoring cancellation."""
        self.stopping.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue
        await super().stop()
