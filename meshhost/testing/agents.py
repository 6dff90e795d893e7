"""Agents for tests, each named by how it behaves. They are classes: give them (or a subclass of your own) to a host.

Every agent made is appended to the `made` of its class, so that a test reaches the one that a host constructed. A subclass
has a `made` of its own; define one per test.
"""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from meshhost.room.call import CallContext
    from meshhost.room.client import RoomClient

__all__ = ["CrashingAgent", "NeverStartingAgent", "QuietAgent", "SlowAgent", "StubbornAgent"]


class QuietAgent:
    """Takes part and does nothing. Records `call` (its constructor's), `room`, and how often it started and stopped."""

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
        """The agent of this class that is made as number 1, 2, … Raises TimeoutError after `timeout` seconds."""
        if number <= len(cls.made):
            agent: Self = cls.made[number - 1]
            return agent
        future: asyncio.Future[Self] = asyncio.get_running_loop().create_future()
        cls._awaited.append((number, future))
        async with asyncio.timeout(timeout):
            return await future

    async def start(self, *, room: "RoomClient") -> None:
        """Take part."""
        self.room = room
        self.starts += 1
        self.started.set()

    async def stop(self) -> None:
        """Leave."""
        self.stops += 1
        self.stopped.set()


class SlowAgent(QuietAgent):
    """Its start returns when `release` is set; `starting` is set when it has begun."""

    def __init__(self, call: "CallContext | None" = None) -> None:
        super().__init__(call)
        self.starting = asyncio.Event()
        self.release = asyncio.Event()

    async def start(self, *, room: "RoomClient") -> None:
        """Take part, in time."""
        self.starting.set()
        await self.release.wait()
        await super().start(room=room)


class NeverStartingAgent(QuietAgent):
    """Its start does not return; it can be cancelled."""

    async def start(self, *, room: "RoomClient") -> None:
        """Begin, and go on beginning."""
        self.room = room
        self.starts += 1
        self.started.set()
        await asyncio.Event().wait()


class CrashingAgent(QuietAgent):
    """Raises `error`: in `start`, or with `crashes_in_start = False` when it runs and `crash` was called.

    Both are class attributes; of the agents of a class, the first `crashes` do so (None: all) and later ones are quiet.
    """

    error: ClassVar[Exception] = RuntimeError("the agent crashed")
    crashes_in_start: ClassVar[bool] = True
    crashes: ClassVar[int | None] = None

    def __init__(self, call: "CallContext | None" = None) -> None:
        super().__init__(call)
        self._crash = asyncio.Event()
        self._is_doomed = self.crashes is None or len(self.made) <= self.crashes

    def crash(self) -> None:
        """End now with the error."""
        self._is_doomed = True
        self._crash.set()

    async def start(self, *, room: "RoomClient") -> None:
        """Take part, or crash."""
        await super().start(room=room)
        if self.crashes_in_start and self._is_doomed:
            raise self.error

    async def wait_ended(self) -> None:
        """Raises the error after `crash`."""
        await self._crash.wait()
        raise self.error


class StubbornAgent(QuietAgent):
    """Its stop swallows every cancellation until `release` is set; `stopping` is set when it was asked to."""

    def __init__(self, call: "CallContext | None" = None) -> None:
        super().__init__(call)
        self.stopping = asyncio.Event()
        self.release = asyncio.Event()

    async def stop(self) -> None:
        """Leave, when it pleases."""
        self.stopping.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue
        await super().stop()
