"""Reports small things in batches, in the background: what both the spans and the log lines of an agent's work need.

Things come one by one, from any thread. They wait here, at most MOST_WAITING, and a task sends those that came within a moment
together. Nothing waits for that: what comes while too many wait is dropped, as is what the server refuses or does not take in
time. At the end of the room what still waits has `_LAST_SECONDS` to be sent.

The task runs only while something waits: a client of an idle agent has none. It belongs to no work and no trace, so that
what is logged or asked for by it is not reported by it in turn.
"""

import asyncio
import contextlib
import contextvars
import json
import logging
from collections import deque
from typing import Any, ClassVar, Generic, TypeVar

from meshhost.errors import AccessDeniedError, MeshhostError, RoomError
from meshhost.room.link import RoomLink

__all__ = ["MOST_WAITING", "Reporter"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WAITING = 1000
# A server of ours takes a header of 1 MiB by default; one line may have 130 KiB.
_BATCH_BYTES = 256 * 1024
_GATHER_SECONDS, _SEND_SECONDS, _LAST_SECONDS = 0.5, 5.0, 0.5


class Reporter(Generic[T]):
    """Takes things and sends them. A subclass says with which request, and what they are on the wire."""

    extension: ClassVar[str]
    """The extension under which a server of ours offers to take them."""
    operation: ClassVar[str]
    member: ClassVar[str]
    """What they are called in the request."""
    max_batch: ClassVar[int]

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room
        self._waiting: deque[T] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._is_over = self._is_refused = False
        self._under_way = asyncio.Lock()

    @property
    def is_offered(self) -> bool:
        """Whether the server takes them, and those of this participant."""
        try:
            return not self._is_refused and self.extension in self._room.extensions.get("extensions", ())
        except RoomError:  # not connected yet
            return False

    def add(self, one: T) -> None:
        """Report it soon. Any thread may call this."""
        if self._is_over or len(self._waiting) >= MOST_WAITING:
            self._count_dropped(1)
            return
        self._waiting.append(one)
        if self._sending is None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing can be sent any more
                self._loop.call_soon_threadsafe(self._begin, context=contextvars.Context())

    async def finish(self) -> None:
        """Send what waits, if that is quick; nothing is taken any more. Never raises."""
        self._is_over = True
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                while self._waiting and self._room.is_open:
                    await self._send()
                async with self._under_way:  # what the task has sent is answered
                    pass
        except (MeshhostError, TimeoutError):
            pass
        self._count_dropped(len(self._waiting))
        self._waiting.clear()

    def _next_batch(self) -> list[dict[str, Any]]:
        """As many as one request may have; a server takes no header without end."""
        batch: list[dict[str, Any]] = []
        size = 0
        while self._waiting and len(batch) < self.max_batch:
            content = self._as_json(self._waiting[0])
            size += len(json.dumps(content, default=str))
            if batch and size > _BATCH_BYTES:
                break
            batch.append(content)
            self._waiting.popleft()
        return batch

    def _as_json(self, one: T) -> dict[str, Any]:
        raise NotImplementedError

    def _count_dropped(self, number: int) -> None:
        """So many were not reported."""

    def _begin(self) -> None:
        if self._sending is None and not self._is_over:
            self._sending = self._room.spawn(self._run(), self.member)

    async def _run(self) -> None:
        try:
            while self._waiting and not self._is_over:
                await self._room.clock.sleep(_GATHER_SECONDS)
                while self._waiting and not self._is_over:
                    await self._send()
        finally:
            self._sending = None

    async def _send(self) -> None:
        async with self._under_way:
            await self._send_batch()

    async def _send_batch(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        try:
            body = {self.member: batch}
            await self._room.send_request(self.operation, body, timeout=_SEND_SECONDS)
        except MeshhostError as error:
            self._is_refused = self._is_refused or isinstance(error, AccessDeniedError)
            facts = {"what": self.member, "number": len(batch), "reason": str(error)}
            logger.debug("a report was not taken", extra=facts)
            self._count_dropped(len(batch))
        except asyncio.CancelledError:
            self._count_dropped(len(batch))
            raise
