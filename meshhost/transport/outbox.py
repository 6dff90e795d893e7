"""The messages that wait to be sent on one connection.

The packets of one message must be contiguous, also when its sender is cancelled in the middle; so senders hand messages to
the outbox and never write themselves. What the transport takes without waiting is sent at once; the rest is written in
order by one task: `run()`, or, where many connections are idle, a task that exists only while something waits (`begin`).
The bytes that may wait are bounded: a client waits for room (`put`); a server, which one slow reader must not hold up,
refuses (`offer`). Invariants: messages are sent in the order in which they were given,
and one that came later never passes a sender that waits for room; when sending has ended, every waiting caller gets an error.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from meshhost.errors import ConnectionLostError, LimitExceededError
from meshhost.protocol.frames import Packets
from meshhost.tasks import LightEvent
from meshhost.transport.base import Transport

__all__ = ["Budget", "Outbox"]

# A larger message is sent with back-pressure. Half of what a TCP transport of asyncio buffers before it asks for a pause.
_AT_ONCE_BYTES = 32 * 1024


class Budget(Protocol):
    """Bounds what waits in several outboxes together. `meshhost.quotas.in_flight.Account` is one."""

    def take(self, size: int, *, may_refuse: bool = True) -> bool:
        """Hold `size` bytes; False when there is no room for them now."""
        ...

    async def reserve(self, size: int) -> None:
        """Hold `size` bytes as soon as there is room. Raises LimitExceededError when there can never be."""
        ...

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less."""
        ...


class Outbox:
    """FIFO of messages for one transport; at most `max_bytes` wait, or one message of any size.

    What waits is held in the `budget`, if there is one: it may make senders wait, and refuse offers while something waits here.
    """

    def __init__(self, transport: Transport, *, max_bytes: int, budget: Budget | None = None) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        self._budget = budget
        # Created when needed: an empty deque takes more memory than the rest of the outbox.
        self._waiting: deque[Packets] | None = None
        self._bytes = 0
        self._start_writer: Callable[[], object] | None = None
        self._is_writing = False
        self._is_running = False
        self._filled = LightEvent()
        self._emptied = LightEvent()
        self._emptied.set()
        self._has_room = LightEvent()
        self._ended = False
        self._turn = asyncio.Lock()

    def begin(self, start_writing: Callable[[], object]) -> None:
        """Send from now on, until `end`. `start_writing` is called to run `write()` as a task, when something has to wait."""
        self._start_writer = start_writing
        if self._waiting:
            self._start_writing()

    def end(self) -> None:
        """End all waits: the connection is over. Idempotent."""
        self._ended = True
        self._is_running = False
        self._start_writer = None  # it refers to the owner of this outbox: a reference cycle
        self._has_room.set()
        self._emptied.set()

    async def run(self) -> None:
        """Send messages as they come, until cancelled. Raises ConnectionLostError. In both cases all waits end."""
        self._is_running = True
        try:
            while True:
                await self._write_waiting()
                self._filled.clear()
                await self._filled.wait()
        finally:
            self.end()

    async def write(self) -> None:
        """Send what waits, after `begin`. Raises ConnectionLostError, and then all waits end."""
        try:
            await self._write_waiting()
        except BaseException:
            self.end()
            raise
        finally:
            self._is_writing = False

    def offer(self, message: Packets, *, over_limit: bool = False) -> None:
        """Add a message. Raises LimitExceededError when too much waits already.

        With `over_limit` it is added all the same: for small messages of which there are few, and which may not be lost.
        """
        if self._is_sent_at_once(message):
            return
        if not over_limit and not self._fits(message):
            raise LimitExceededError(f"over {self._max_bytes} bytes wait to be sent")
        may_refuse = bool(self._waiting) and not over_limit
        if self._budget is not None and not self._budget.take(message.size, may_refuse=may_refuse):
            raise LimitExceededError("too many bytes of all participants wait to be sent")
        self._append(message)

    def put_at_once(self, message: Packets) -> bool:
        """Send a message if that needs no wait, and return whether it did; `put` does so by itself."""
        return not self._turn.locked() and self._is_sent_at_once(message)

    async def put(self, message: Packets, *, reserved: int = 0) -> None:
        """Add a message, waiting for room. The caller must set a timeout. Raises ConnectionLostError when sending has ended.

        `reserved` bytes of the budget are held for it already; they are given back in any case. Raises LimitExceededError for
        a message that is larger than the budget.
        """
        if not reserved and self.put_at_once(message):
            return
        try:
            async with self._turn:  # a small message must not overtake a large one that waits for room
                while not self._fits(message) and not self._ended:
                    self._has_room.clear()
                    await self._has_room.wait()
                if self._ended:
                    raise ConnectionLostError
                if self._is_sent_at_once(message):
                    return
                if self._budget is not None:
                    if reserved:  # what surrounds the reserved bytes in the message is small
                        self._budget.take(message.size - reserved, may_refuse=False)
                        reserved = 0
                    elif not self._budget.take(message.size):
                        await self._budget.reserve(message.size)
                self._append(message)
        finally:
            if reserved and self._budget is not None:
                self._budget.give_back(reserved)

    def _append(self, message: Packets) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._bytes += message.size
        if not self._ended:
            self._emptied.clear()
            self._start_writing()

    async def wait_empty(self) -> None:
        """Return when all that was added is handed to the transport. The caller must set a timeout.

        Raises ConnectionLostError when sending ended before.
        """
        await self._emptied.wait()
        if self._ended and self._waiting:
            raise ConnectionLostError
        self._transport.flush()

    def _is_sent_at_once(self, message: Packets) -> bool:
        has_begun = self._is_running or self._start_writer is not None
        if not has_begun or self._ended or self._waiting or message.size > _AT_ONCE_BYTES:
            return False
        try:
            return self._transport.send_at_once(message)
        except ConnectionLostError:
            return False  # the writing task gets this error too, and ends the connection

    def _start_writing(self) -> None:
        self._filled.set()
        if self._start_writer is not None and not self._is_writing:
            self._is_writing = True
            self._start_writer()

    async def _write_waiting(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            await self._transport.send(message)
            self._waiting.popleft()
            self._bytes -= message.size
            if self._budget is not None:
                self._budget.give_back(message.size)
            self._has_room.set()
        self._waiting = None
        self._emptied.set()

    def _fits(self, message: Packets) -> bool:
        return not self._waiting or self._bytes + message.size <= self._max_bytes
