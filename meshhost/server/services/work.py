"""Keeps rooms awake while their queues have work, and wakes those that sleep.

A message may become ready while its room is closed: it was sent through another door, its retry time came, its lease expired,
or the server was restarted. The queue service reports each such message (`on_ready`). What is reported is not always work: its
queue may be paused, an earlier message of its key may wait for its time, or it was sent before under its id. So the store is
asked before a room that sleeps is woken; for one that is awake the report is passed on at once. A report can be lost with the
process, or before this service runs; so `run` looks over all rooms when the server starts and every `look_seconds` after that,
with one query for all of them. The directory asks `has_work` before it ends a room.

Waking a room calls its agents. Many rooms at once, as after a restart, are therefore woken a few at a time.
"""

import asyncio
import logging
from collections.abc import Callable

from meshhost.errors import MeshhostError
from meshhost.identity.tenant import RoomKey
from meshhost.queues.service import QueueService
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService
from meshhost.stores.queues import QueueKey

__all__ = ["WorkService"]

logger = logging.getLogger(__name__)

# Rooms that are woken without a pause, and the pause.
_AT_ONCE = 20
_PAUSE_SECONDS = 0.1


class WorkService(RoomService):
    """`need` wakes a room, `is_awake` says whether one is; a message that is ready within `linger_seconds` counts as work."""

    def __init__(
        self,
        queues: QueueService,
        *,
        linger_seconds: float,
        look_seconds: float,
        need: Callable[[RoomKey], None],
        is_awake: Callable[[RoomKey], bool],
    ) -> None:
        self._queues = queues
        self._linger_seconds = linger_seconds
        self._look_seconds = look_seconds
        self._need = need
        self._is_awake = is_awake
        # The rooms that sleep, of which a message was reported.
        self._reported: set[RoomKey] = set()
        self._has_reports = asyncio.Event()

    async def run(self) -> None:
        """Wake rooms with work, until cancelled."""
        self._queues.on_ready.append(self._is_ready)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look_now_and_then(), name="look for work")
                tasks.create_task(self._look_at_reports(), name="look for reported work")
        finally:
            self._queues.on_ready.remove(self._is_ready)

    async def has_work(self, room: Room) -> bool:
        """See RoomService: whether a message is ready, leased, or ready before the room has lingered once more."""
        return bool(await self._queues.rooms_with_work(within=self._linger_seconds, room=room.key))

    def _is_ready(self, queue: QueueKey) -> None:
        if self._is_awake(queue.room):
            self._need(queue.room)
        else:
            self._reported.add(queue.room)
            self._has_reports.set()

    async def _look_now_and_then(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._look_seconds)

    async def _look_at_reports(self) -> None:
        while True:
            await self._has_reports.wait()
            self._has_reports.clear()
            rooms, self._reported = self._reported, set()
            if len(rooms) > _AT_ONCE:
                await self._look()  # one query for all of them
                continue
            for room in rooms:
                if await self._can_work(room):
                    self._need(room)

    async def _can_work(self, room: RoomKey) -> bool:
        try:
            return bool(await self._queues.rooms_with_work(within=self._linger_seconds, room=room))
        except (OSError, TimeoutError, MeshhostError) as error:
            logger.warning("work of a room is not known", extra={"room": room.name, "reason": str(error)})
            return True

    async def _look(self) -> None:
        try:
            rooms = await self._queues.rooms_with_work(within=self._linger_seconds)
        except (OSError, TimeoutError, MeshhostError) as error:
            logger.warning("rooms with work are not known", extra={"reason": str(error)})
            return
        for number, room in enumerate(rooms, start=1):
            self._need(room)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(_PAUSE_SECONDS)
