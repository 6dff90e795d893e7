"""Keeps rooms awake while their queues have work, and wakes those that sleep.

A message may become ready while its room is closed: it was sent through another door, its retry time came, its lease expired,
or the server was restarted. The queue service reports each such message (`on_ready`), and the room is woken at once. A report
can be lost with the process, or before this service runs; so `run` looks over all rooms when the server starts and every
`look_seconds` after that, with one query for all of them. The directory asks `has_work` before it ends a room.

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
    """See above. `need` wakes a room; a message that becomes ready within `linger_seconds` counts as work."""

    def __init__(
        self, queues: QueueService, *, linger_seconds: float, look_seconds: float, need: Callable[[RoomKey], None]
    ) -> None:
        self._queues = queues
        self._linger_seconds = linger_seconds
        self._look_seconds = look_seconds
        self._need = need

    async def run(self) -> None:
        """Wake rooms with work, until cancelled."""
        self._queues.on_ready.append(self._is_ready)
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._look_seconds)
        finally:
            self._queues.on_ready.remove(self._is_ready)

    async def has_work(self, room: Room) -> bool:
        """See RoomService: whether a message is ready, leased, or ready before the room has lingered once more."""
        return bool(await self._queues.rooms_with_work(within=self._linger_seconds, room=room.key))

    def _is_ready(self, queue: QueueKey) -> None:
        self._need(queue.room)

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
