"""What waits to be sent on one connection.

Packets of one message must never be torn apart by the cancellation of whoever sent it, so senders put messages into the
outbox and one task, `run()`, writes them in order. The bytes that may wait are bounded: a client waits for room (`put`), a
server, which must not be slowed by one reader, refuses (`offer`).
"""

import asyncio
from collections import deque

from meshhost.errors import ConnectionLostError, LimitExceededError
from meshhost.protocol.frames import Packets
from meshhost.transport.base import Transport

__all__ = ["Outbox"]


class Outbox:
    """FIFO of messages for one transport; at most `max_bytes` wait, or one message of any size."""

    def __init__(self, transport: Transport, *, max_bytes: int) -> None:
        self._transport = transport
        self._max_bytes = max_bytes
        self._waiting: deque[Packets] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._has_room = asyncio.Event()
        self._ended = False
        self._turn = asyncio.Lock()

    def offer(self, message: Packets) -> None:
        """Add a message. Raises LimitExceededError when too much waits already."""
        if not self._fits(message):
            raise LimitExceededError(f"over {self._max_bytes} bytes wait to be sent")
        self._waiting.append(message)
        self._bytes += message.size
        self._filled.set()
        if not self._ended:
            self._emptied.clear()

    async def put(self, message: Packets) -> None:
        """Add a message, waiting for room. Whoever calls bounds the wait. Raises ConnectionLostError when sending has ended."""
        async with self._turn:  # a small message must not overtake a large one that waits for room
            while not self._fits(message) and not self._ended:
                self._has_room.clear()
                await self._has_room.wait()
            if self._ended:
                raise ConnectionLostError
            self.offer(message)

    async def run(self) -> None:
        """Send what comes, for ever. Raises ConnectionLostError. Afterwards nobody waits for it any more."""
        try:
            await self._send_all()
        finally:
            self._ended = True
            self._has_room.set()
            self._emptied.set()

    async def _send_all(self) -> None:
        while True:
            while self._waiting:
                message = self._waiting[0]
                await self._transport.send(message)
                self._waiting.popleft()
                self._bytes -= message.size
                self._has_room.set()
            self._emptied.set()
            self._filled.clear()
            await self._filled.wait()

    async def wait_empty(self) -> None:
        """Return when all that was added is handed to the transport. Whoever calls bounds the wait.

        Raises ConnectionLostError when sending ended before.
        """
        await self._emptied.wait()
        if self._ended and self._waiting:
            raise ConnectionLostError

    def _fits(self, message: Packets) -> bool:
        return not self._waiting or self._bytes + message.size <= self._max_bytes
