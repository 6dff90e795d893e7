"""Reserves room for large messages of the WebSocket before they are read.

The WebSocket library shows a message when all of it is there. Without more, every connection could hold an unfinished one of
the largest size in memory, uncounted. `Arriving` follows the frames in the bytes that the listener passes on (`FrameSizes`). It
takes the announced size of a message in the connection's account as soon as a frame's header has come, and hands it over to the
`Inbox` with the message. Without room it stops reading: TCP makes the sender wait. When there is none for ROOM_SECONDS, the
unfinished request of the connection is dropped to make some, and then the connection is ended.

Messages up to FREE_BYTES, which all clients that are known send, are not reserved: each connection may hold as much anyhow.
Every unfinished message has a deadline (`Arrivals`), small ones too; time in which the connection is not read does not count.

Frames that carry next to nothing, pings above all, are bounded by a rate: a client sends some of them in a minute, but anybody
could keep everybody's event loop busy with thousands in each packet. Who sends more is disconnected, and what else had come is
dropped unseen.

All in the event loop. At most one task per connection, and only while room is waited for.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from meshhost.errors import ConnectionLostError, LimitExceededError
from meshhost.quotas.in_flight import FREE_BYTES, Account
from meshhost.transport.frame_sizes import FrameSizes

__all__ = ["LATE", "Arrivals", "Arriving", "Late", "Reading"]

ROOM_SECONDS = 10.0
LATE = "too slow: a message was begun and not finished in time"
_NO_ROOM = "too much: there is no room for this message now"
_TOO_MANY = "too many pings, or messages in too many pieces"
_LOOK_SECONDS = 1.0
# Frames that carry next to nothing: so many at once, and so many a second.
IDLE_FRAMES, IDLE_FRAMES_PER_SECOND = 200, 20.0


class Late(Protocol):
    """Something that arrives, and must have arrived in time."""

    arrived: int

    @property
    def waits_for_room(self) -> bool:
        """Whether it is this side that does not take it."""
        ...

    def end_late(self) -> None:
        """It did not arrive in time."""
        ...


class Arrivals:
    """What is being received by all connections of a server, unfinished messages and requests.

    Each has `seconds` to arrive, and another one for every `bytes_per_second` of it that came. One timer, which runs while
    there is something; what arrives at once costs an entry in a dict.
    """

    def __init__(self, *, seconds: float, bytes_per_second: float) -> None:
        self._seconds = seconds
        self._bytes_per_second = bytes_per_second
        self._since: dict[Late, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, arriving: Late) -> None:
        """It began."""
        loop = asyncio.get_running_loop()
        self._since[arriving] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop)

    def end(self, arriving: Late) -> None:
        """It is complete, or its connection has ended. Idempotent."""
        self._since.pop(arriving, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_LOOK_SECONDS, self._look, loop) if self._since else None
        now = loop.time()
        for arriving, since in list(self._since.items()):
            if arriving.waits_for_room:
                self._since[arriving] = since + _LOOK_SECONDS
            elif now - since > self._seconds + arriving.arrived / self._bytes_per_second:
                self.end(arriving)
                arriving.end_late()


class Reading(Protocol):
    """A connection that can be read or not, as the listener's."""

    def hold_back(self, is_held_back: bool) -> None:
        """Read no more after the present data, or go on."""
        ...

    def is_reading(self) -> bool:
        """Whether data is read at the moment."""
        ...


class Arriving:
    """The unfinished message of one connection. The library takes none larger than `most` bytes."""

    def __init__(
        self,
        connection: Reading,
        account: Account,
        arrivals: Arrivals,
        *,
        most: int,
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        self._connection = connection
        self._account = account
        self._arrivals = arrivals
        self._most = most
        self._room_seconds = room_seconds
        self._sizes = FrameSizes()
        self._is_unfinished = False
        # Of frames that carry next to nothing: how many may have come by then.
        self._most_idle, self._idle_at = float(IDLE_FRAMES), time.monotonic()
        self._is_over = False
        self._reserved = 0
        # Complete messages that hold something and were not taken yet, by number; and how many were taken.
        self._complete: deque[tuple[int, int]] = deque()
        self._taken = 0
        self._waiting: asyncio.Task[None] | None = None
        self._make_room: Callable[[], bool] = lambda: False
        self._end: Callable[[str], None] = lambda _: None
        self.arrived = 0

    def attach(self, *, make_room: Callable[[], bool], end: Callable[[str], None]) -> None:
        """Call `make_room`, which returns whether it gave something back, and `end` with the reason, when there is no room."""
        self._make_room, self._end = make_room, end
        if self._is_over:
            end(_TOO_MANY)

    @property
    def waits_for_room(self) -> bool:
        """See Late."""
        return self._waiting is not None or not self._connection.is_reading()

    def feed(self, data: bytes) -> bool:
        """Follow the next bytes, before the library gets them; False when it must not get them."""
        sizes, finished = self._sizes, self._sizes.finished
        if self._is_over:
            return False
        now = time.monotonic()
        more = (now - self._idle_at) * IDLE_FRAMES_PER_SECOND
        self._idle_at, self._most_idle = now, min(self._most_idle + more, sizes.idle + IDLE_FRAMES)
        sizes.feed(data, most_idle=self._most_idle)
        if sizes.idle > self._most_idle:
            self._is_over = True
            self._end(_TOO_MANY)
            return False
        self._follow(sizes, finished, len(data))
        return True

    def _follow(self, sizes: FrameSizes, finished: int, came: int) -> None:
        if self._is_unfinished and (sizes.finished > finished or not sizes.is_unfinished):
            self._finish(finished + 1)
        if not sizes.is_unfinished:
            return
        if not self._is_unfinished:
            self._is_unfinished, self.arrived = True, 0
            self._arrivals.begin(self)
        self.arrived += came
        if sizes.announced > max(FREE_BYTES, self._reserved) and sizes.announced <= self._most:
            self._reserve()

    def take(self) -> int:
        """The next message is taken: return how many bytes it holds in the account."""
        self._taken += 1
        if self._complete and self._complete[0][0] == self._taken:
            return self._complete.popleft()[1]
        return 0

    def end_late(self) -> None:
        """See Late."""
        self._end(LATE)

    def close(self) -> None:
        """The connection has ended. What is held goes with its account. Idempotent."""
        self._arrivals.end(self)
        self._wait_no_more()

    def _finish(self, number: int) -> None:
        self._is_unfinished = False
        self._arrivals.end(self)
        self._wait_no_more()  # the rest had been read already
        if self._reserved:
            self._complete.append((number, self._reserved))
            self._reserved = 0

    def _reserve(self) -> None:
        if self._waiting is not None:
            return  # it will see the larger size
        if self._account.take(self._sizes.announced - self._reserved):
            self._reserved = self._sizes.announced
            return
        self._connection.hold_back(True)
        self._waiting = asyncio.get_running_loop().create_task(self._wait(), name="room for a frame")
        self._waiting.add_done_callback(self._waited)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waited(self._waiting)

    def _waited(self, task: asyncio.Task[None]) -> None:
        if self._waiting is task:
            self._waiting = None
            self._connection.hold_back(False)

    async def _wait(self) -> None:
        try:
            while (more := self._sizes.announced - self._reserved) > 0:
                if not await self._find_room(more) and not (self._make_room() and await self._find_room(more)):
                    self._end(_NO_ROOM)
                    return
                self._reserved += more
        except ConnectionLostError:
            pass

    async def _find_room(self, size: int) -> bool:
        try:
            async with asyncio.timeout(self._room_seconds):
                await self._account.reserve(size)
        except (TimeoutError, LimitExceededError):
            return False
        return True
